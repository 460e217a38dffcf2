from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional

from flyweight.config.tasks import SegmentConfig
from flyweight.data.batch import IGNORE, Batch, MapPrediction, MapTarget
from flyweight.errors import ConfigError, TrainingError
from flyweight.tasks.segment import Segmentation, dice_loss, placed_labels

LABELS = ("sky", "road", "car")


def batch_of(*maps, size=(4, 6), scale=(1.0, 1.0)):
    targets = [
        MapTarget(labels=labels, image_id=0, path=Path(), original_size=size, scale=scale)
        for labels in maps
    ]
    return Batch(torch.zeros(len(maps), 3, *maps[0].shape), tuple(targets))


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 3, (2, 4, 6), generator=generator)
    maps[0, 0] = IGNORE
    return maps


def test_the_loss_is_pytorchs(labels):
    outputs = torch.randn(2, 3, 4, 6)
    loss = Segmentation(LABELS).loss(outputs, batch_of(*labels))
    wanted = functional.cross_entropy(outputs, labels, ignore_index=IGNORE)
    assert float(loss["loss"]) == pytest.approx(float(wanted))
    weights = (1.0, 2.0, 0.5)
    loss = Segmentation(LABELS, SegmentConfig(class_weights=weights)).loss(
        outputs, batch_of(*labels)
    )
    wanted = functional.cross_entropy(
        outputs, labels, weight=torch.tensor(weights), ignore_index=IGNORE
    )
    assert float(loss["loss"]) == pytest.approx(float(wanted))


def test_small_maps_are_enlarged(labels):
    outputs = torch.randn(2, 3, 2, 3)
    large = functional.interpolate(outputs, size=(4, 6), mode="bilinear")
    task = Segmentation(LABELS)
    losses = [float(task.loss(maps, batch_of(*labels))["loss"]) for maps in (outputs, large)]
    assert losses[0] == pytest.approx(losses[1])
    decoded = [task.decode(maps, batch_of(*labels)) for maps in (outputs, large)]
    for one, other in zip(*decoded, strict=True):
        assert torch.equal(one.labels, other.labels)


def test_a_batch_without_labels_has_no_loss():
    empty = torch.full((4, 6), IGNORE)
    loss = Segmentation(LABELS, SegmentConfig(dice=1)).loss(
        torch.randn(1, 3, 4, 6), batch_of(empty)
    )
    assert {name: float(value) for name, value in loss.items()} == {
        "loss": 0.0,
        "entropy": 0.0,
        "dice": 0.0,
    }


def test_dice_by_hand(labels):
    right = functional.one_hot(labels.where(labels != IGNORE, 0), 3).permute(0, 3, 1, 2).float()
    assert float(dice_loss(right * 100, labels)) == pytest.approx(0, abs=1e-6)
    scores = torch.randn(2, 3, 4, 6)
    seen = (labels != IGNORE)[:, None]
    found, wanted = scores.softmax(1) * seen, right * seen
    each = [
        1 - 2 * float((found[:, c] * wanted[:, c]).sum() / (found[:, c] + wanted[:, c]).sum())
        for c in range(3)
    ]
    assert float(dice_loss(scores, labels)) == pytest.approx(sum(each) / 3)


def test_labels_come_at_the_size_of_the_picture():
    # Left half sky, right half car; padded below from row 2 on.
    scores = torch.zeros(1, 3, 4, 6)
    scores[:, 0, :, :3] = scores[:, 2, :, 3:] = 5
    scores[:, 1, 2:] = 50
    target = batch_of(torch.zeros(4, 6, dtype=torch.int64), size=(6, 18), scale=(3.0, 3.0))
    (found,) = Segmentation(LABELS).decode(scores, target)
    assert found.labels.dtype == torch.uint8
    assert found.labels.shape == (6, 18)
    assert set(found.labels[:, :8].flatten().tolist()) == {0}
    assert set(found.labels[:, 10:].flatten().tolist()) == {2}
    exported = Segmentation(LABELS).decoder()(scores)
    placed = placed_labels(exported[0], target.targets[0])
    assert placed.shape == (6, 18)
    assert float((placed == found.labels).float().mean()) > 0.9


def test_shares_are_listed_largest_first():
    labels = torch.tensor([[2, 2, 2], [0, 0, 2]], dtype=torch.uint8)
    assert Segmentation(LABELS).listed(MapPrediction(labels), threshold=0.5) == [
        {"label": "car", "share": 0.6667},
        {"label": "sky", "share": 0.3333},
    ]


def test_drawn_at_the_pictures_size(tmp_path):
    prediction = MapPrediction(torch.zeros(60, 90, dtype=torch.uint8))
    image = Image.new("RGB", (90, 60), "white")
    drawn = Segmentation(LABELS).draw(image, prediction, threshold=0.5)
    assert drawn.size == (90, 60)


@pytest.mark.parametrize("outputs", [torch.zeros(1, 4, 4, 6), torch.zeros(1, 3), {"out": 1}])
def test_outputs_of_another_shape(outputs):
    batch = batch_of(torch.zeros(4, 6, dtype=torch.int64))
    for call in (Segmentation(LABELS).loss, Segmentation(LABELS).decode):
        with pytest.raises(TrainingError, match=r"scores of shape \(n, 3, h, w\)"):
            call(outputs, batch)


@pytest.mark.parametrize("count", [0, 256])
def test_labels_must_fit_a_byte(count):
    with pytest.raises(ConfigError, match="1 to 255 labels"):
        Segmentation([str(index) for index in range(count)])
