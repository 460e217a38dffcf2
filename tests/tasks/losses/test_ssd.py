import math

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from flyweight.errors import ConfigError
from flyweight.tasks.decoding.ssd import make_priors
from flyweight.tasks.losses.ssd import SsdLossSettings, hard_negatives, match_priors, ssd_loss
from flyweight.zoo.detectors.ssd import SsdGeometry, SsdLevel

GEOMETRY = SsdGeometry(
    (
        SsdLevel(((16.0, 16.0), (24.0, 12.0), (12.0, 24.0)), 16),
        SsdLevel(((40.0, 40.0), (56.0, 28.0)), 32),
    )
)
SIDES = ((4, 4), (2, 2))
PRIORS = make_priors(SIDES, GEOMETRY)
CLASSES = 3
DEFAULT = SsdLossSettings()


def raw_maps(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for (rows, columns), level in zip(SIDES, GEOMETRY.levels, strict=True):
        for each in (4, 1 + CLASSES):
            size = (count, len(level.shapes) * each, rows, columns)
            maps.append(torch.randn(size, generator=generator))
    return maps


def rows_of(maps, each):
    """Every prior's values, by loops: `(n, priors, each)`."""
    rows = []
    for raw in maps:
        for row in range(raw.shape[2]):
            for column in range(raw.shape[3]):
                for start in range(0, raw.shape[1], each):
                    rows.append(raw[:, start : start + each, row, column])
    return torch.stack(rows, dim=1).double().numpy()


def overlap(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def paddles_match(overlaps, threshold):
    """PaddlePaddle's bipartite_match with "per_prediction", by its definition."""
    objects, priors = overlaps.shape
    found = [-1] * priors
    pairs = sorted(
        ((-overlaps[i, j], j, i) for i in range(objects) for j in range(priors)), key=lambda p: p
    )
    taken = set()
    for negated, prior, thing in pairs:
        if -negated > 1e-6 and found[prior] == -1 and thing not in taken:
            found[prior] = thing
            taken.add(thing)
    for prior in range(priors):
        if found[prior] == -1:
            best = max(range(objects), key=lambda thing: overlaps[thing, prior], default=None)
            if best is not None and overlaps[best, prior] >= threshold:
                found[prior] = best
    return found


def paddles_loss(maps, targets, settings):
    """PaddlePaddle's ssd_loss, by its definition, and the loss's two terms."""
    offsets, logits = rows_of(maps[0::2], 4), rows_of(maps[1::2], 1 + CLASSES)
    priors = PRIORS.double().numpy()
    location = classes = positives = 0.0
    for index, target in enumerate(targets):
        boxes = target.boxes.double().numpy()
        overlaps = np.array([[overlap(box, prior) for prior in priors] for box in boxes])
        overlaps = overlaps.reshape(len(boxes), len(priors))
        match = paddles_match(overlaps, settings.match_threshold)
        labels = [0 if m < 0 else int(target.labels[m]) + 1 for m in match]
        entropy = [
            math.log(np.exp(row).sum()) - row[label]
            for row, label in zip(logits[index], labels, strict=True)
        ]
        held = [j for j, m in enumerate(match) if m >= 0]
        empty = sorted((j for j, m in enumerate(match) if m < 0), key=lambda j: -entropy[j])
        chosen = empty[: int(len(held) * settings.negatives)]
        classes += sum(entropy[j] for j in held + chosen)
        positives += len(held)
        for j in held:
            location += smooth(offsets[index, j] - encoded(boxes[match[j]], priors[j]))
    count = max(positives, 1)
    return location / count, classes / count


def encoded(box, prior):
    size, prior_size = box[2:] - box[:2], prior[2:] - prior[:2]
    moved = ((box[2:] + box[:2]) - (prior[2:] + prior[:2])) / 2 / prior_size / 0.1
    return np.concatenate((moved, np.log(size / prior_size) / 0.2))


def smooth(values):
    values = np.abs(values)
    return np.where(values < 1, values**2 / 2, values - 0.5).sum()


def random_targets(make_target, seed, count=4, most=5):
    generator = np.random.default_rng(seed)
    targets = []
    for _ in range(count):
        number = int(generator.integers(0, most + 1))
        corner = generator.uniform(0, 40, (number, 2))
        boxes = np.concatenate((corner, corner + generator.uniform(4, 30, (number, 2))), axis=1)
        labels = generator.integers(0, CLASSES, number)
        targets.append(make_target(boxes.reshape(-1, 4), labels, size=(64, 64)))
    return targets


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("settings", [DEFAULT, SsdLossSettings(match_threshold=0.35, negatives=7)])
def test_the_loss_is_paddles(make_target, seed, settings):
    targets = random_targets(make_target, seed)
    maps = raw_maps(len(targets), seed)
    found = ssd_loss(maps, targets, GEOMETRY, CLASSES, settings)
    location, classes = paddles_loss(maps, targets, settings)
    assert float(found["loss_loc"]) == pytest.approx(location, rel=1e-4)
    assert float(found["loss_cls"]) == pytest.approx(classes, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(location + classes, rel=1e-4)
    assert location > 0


@pytest.mark.parametrize("seed", range(20))
def test_matches_are_paddles(seed):
    generator = torch.Generator().manual_seed(seed)
    # Few priors and many objects: they compete.
    overlaps = torch.rand(8, 12, generator=generator) * (
        torch.rand(8, 12, generator=generator) > 0.3
    )
    found = match_priors(overlaps, 0.9)
    assert found.tolist() == paddles_match(overlaps.numpy(), 0.9)
    assert len(set(found[found >= 0].tolist())) > 4


def test_matches_are_torchvisions_where_objects_do_not_compete():
    corners = torch.tensor([[2.0, 3.0], [40.0, 5.0], [10.0, 44.0]])
    boxes = torch.cat(
        (corners, corners + torch.tensor([[15.0, 17.0], [20.0, 14.0], [30.0, 18.0]])), 1
    )
    overlaps = box_iou(boxes, PRIORS)
    assert len(set(overlaps.argmax(dim=1).tolist())) == 3
    for threshold in (0.3, 0.5):
        theirs = SSDMatcher(threshold)(overlaps)
        assert torch.equal(match_priors(overlaps, threshold), theirs)
        assert (theirs >= 0).sum() >= 3


def test_an_object_that_no_prior_touches_is_left_out():
    assert match_priors(torch.tensor([[0.0, 0.0], [0.2, 0.0]]), 0.5).tolist() == [1, -1]
    assert match_priors(torch.zeros(0, 3), 0.5).tolist() == [-1, -1, -1]


def test_the_hardest_are_chosen_for_each_picture():
    losses = torch.tensor([[5.0, 1, 4, 3, 9, 2], [1, 2, 3, 4, 5, 6]])
    positive = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    spare = torch.tensor([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    assert hard_negatives(losses, positive, spare, 2.0).tolist() == [
        [False, False, True, True, False, False],
        [False] * 6,
    ]
    assert hard_negatives(losses, positive, spare, 100.0)[0].tolist() == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]


def test_pictures_without_objects_cost_nothing(make_target):
    found = ssd_loss(raw_maps(2), [make_target(), make_target()], GEOMETRY, CLASSES, DEFAULT)
    assert [float(value) for value in found.values()] == [0, 0, 0]


def test_crowds_are_neither_learnt_nor_background(make_target):
    boxes = [[0, 0, 16, 16], [34, 34, 64, 64]]
    plain = make_target(boxes[:1], [1], size=(64, 64))
    crowd = make_target(boxes, [1, 0], crowd=[1], size=(64, 64))
    maps = raw_maps(1)
    on_crowd = (box_iou(torch.tensor(boxes[1:]).float(), PRIORS)[0] >= 0.5).nonzero().flatten()
    assert on_crowd.tolist() == [54, 55]
    every = SsdLossSettings(negatives=1000)
    alone, with_it = (
        ssd_loss(maps, [target], GEOMETRY, CLASSES, every) for target in (plain, crowd)
    )
    assert torch.equal(alone["loss_loc"], with_it["loss_loc"])
    positives = (match_priors(box_iou(plain.boxes, PRIORS), 0.5) >= 0).sum()
    logits = rows_of(maps[1::2], 1 + CLASSES)[0, on_crowd]
    entropy = (np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]).sum()
    saved = float((alone["loss_cls"] - with_it["loss_cls"]) * positives)
    assert saved == pytest.approx(entropy, abs=1e-4)


def test_mixups_weights_count(make_target):
    maps, boxes = raw_maps(1), [[0, 0, 16, 16]]
    none = SsdLossSettings(negatives=0)
    terms = [
        ssd_loss(maps, [make_target(boxes, [1], weights=[w])], GEOMETRY, CLASSES, none)["loss"]
        for w in (1.0, 0.25)
    ]
    assert float(terms[1]) == pytest.approx(float(terms[0]) / 4)


def test_it_has_gradients_in_half_precision_too(make_target):
    maps = [level.bfloat16().requires_grad_() for level in raw_maps(2)]
    targets = [make_target([[0, 0, 16, 16], [10, 10, 50, 50]], [0, 2]), make_target()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ssd_loss(maps, targets, GEOMETRY, CLASSES, DEFAULT)["loss"]
    assert found.dtype == torch.float32
    found.backward()
    assert all(level.grad.abs().sum() > 0 for level in maps)


def test_another_number_of_classes_is_refused(make_target):
    with pytest.raises(ConfigError, match="2 classes and the background"):
        ssd_loss(raw_maps(1), [make_target()], GEOMETRY, 2, DEFAULT)
