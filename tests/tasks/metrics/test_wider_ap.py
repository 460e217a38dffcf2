import itertools
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.data.batch import BoxPrediction
from flyweight.data.layouts.wider_truth import LEVELS, ImageTruth, read_truth
from flyweight.errors import DataError
from flyweight.tasks.metrics.wider_ap import (
    THRESHOLDS,
    WiderAp,
    levels_by_height,
    match_faces,
    scaled_scores,
    truth_of,
)

# What biubug6/Pytorch_Retinaface's widerface_evaluate/evaluation.py (commit b984b4b, the Python
# tool that is commonly used, after wondervictor/WiderFace-Evaluation) gives for `guesses` of these
# seeds, written to its text format with all digits and read by it unchanged, with the overlaps of
# its Cython part written in numpy.
PUBLISHED = {
    1: (0.6111644386043921, 0.677194871639635, 0.7313052082605116),
    2: (0.09993279991985471, 0.15887985508354802, 0.28839404973207095),
}


def guesses(truth, seed, index):
    """Return boxes and scores of one image: near the faces, repeated, and far from them."""
    draw = np.random.default_rng([seed, index])
    faces = truth.boxes[draw.random(len(truth.boxes)) < 0.85]
    faces = np.repeat(faces, 1 + (draw.random(len(faces)) < 0.2), axis=0)
    sides = np.tile(faces[:, 2:] - faces[:, :2], 2)
    near = faces + (draw.random(faces.shape) - 0.5) * (0.4 if seed == 1 else 0.7) * sides
    corner = draw.random((int(draw.random() * 8), 2)) * 900
    far = np.concatenate([corner, corner + 8 + draw.random(corner.shape) * 200], axis=1)
    boxes = np.concatenate([near, far])
    scores = np.concatenate([draw.random(len(near)) ** 0.5, 0.9 * draw.random(len(far)) ** 2])
    scores = np.round(scores, 3 if seed == 1 else 6) * (1 if seed == 1 else 0.8)
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def slow_curve(images, level, low, high):
    """The protocol as the tools spell it, threshold by threshold, image by image."""
    sums = np.zeros((1000, 2))
    total = sum(int(counts[:, level].sum()) for _, _, _, counts in images)
    for boxes, scores, faces, counts in images:
        if not len(boxes) or not len(faces):
            continue
        taken, ignored, hits = set(), [], []
        for box in boxes:
            overlaps = [_iou(box, face) for face in faces]
            best = int(np.argmax(overlaps))
            hit = overlaps[best] >= 0.5
            ignored.append(hit and not counts[best, level])
            if hit and counts[best, level]:
                taken.add(best)
            hits.append(len(taken))
        whole = (scores - low) / (high - low)
        for step in range(1000):
            count = int((whole >= 1 - (step + 1) / 1000).sum())
            if count:
                sums[step] += count - sum(ignored[:count]), hits[count - 1]
    return sums, total


def slow_ap(sums, total):
    recall = np.concatenate([[0.0], sums[:, 1] / total, [1.0]])
    precision = np.zeros(1002)
    defined = sums[:, 0] > 0
    precision[1:-1][defined] = sums[defined, 1] / sums[defined, 0]
    area = 0.0
    for step in range(1001):
        area += (recall[step + 1] - recall[step]) * precision[step + 1 :].max()
    return area


def _iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def _random_images(seed, count=4):
    draw = np.random.default_rng(seed)
    images = []
    for index in range(count):
        corner = draw.integers(0, 60, (draw.integers(0, 5), 2)).astype(float)
        faces = np.concatenate([corner, corner + draw.integers(3, 60, corner.shape)], axis=1)
        counts = draw.random((len(faces), 3)) < 0.7
        truth = ImageTruth("0--x", str(index), faces, counts)
        images.append((*guesses(truth, 1 + seed % 2, index), faces, counts))
    return images


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_it_is_the_slow_protocol(seed):
    images = _random_images(seed)
    metric = WiderAp()
    for image in images:
        metric.add(*image)
    scores = np.concatenate([scores for _, scores, _, _ in images])
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    found = metric.compute()
    for level, name in enumerate(LEVELS):
        sums, total = slow_curve(images, level, low, high)
        if total:
            assert found[f"wider_{name}"] == pytest.approx(slow_ap(sums, total), abs=1e-12)
        else:
            assert found.get(f"wider_{name}", 0.0) == 0.0


@pytest.mark.data
@pytest.mark.parametrize("seed", PUBLISHED)
def test_it_gives_the_numbers_of_the_published_tool(data_root, seed):
    truth = read_truth(data_root / "face_wider_val_gt")
    start = time.perf_counter()
    metric = WiderAp()
    for index, image in enumerate(truth):
        metric.add(*guesses(image, seed, index), image.boxes, image.counts)
    found = metric.compute()
    assert [found[f"wider_{level}"] for level in LEVELS] == pytest.approx(PUBLISHED[seed], abs=1e-6)
    assert time.perf_counter() - start < 60


@pytest.mark.data
def test_height_nearly_says_the_published_levels(data_root):
    """The rule for sets without lists, on the set that has them, as its docstring says."""
    truth = read_truth(data_root / "face_wider_val_gt")
    counts = np.concatenate([image.counts for image in truth])
    boxes = np.concatenate([image.boxes for image in truth])
    ruled = levels_by_height(boxes, np.zeros(len(boxes), dtype=bool))
    assert len(counts) == 39_708
    agreement = (ruled == counts).mean(axis=0)
    assert agreement[0] == pytest.approx(0.997, abs=5e-4)
    assert agreement[1] > 0.99
    assert agreement[2] > 0.96


def test_perfect_faces_are_perfect_and_scores_may_be_equal():
    faces = np.array([[0.0, 0, 60, 60], [100, 100, 140, 140]])
    metric = WiderAp()
    metric.add(faces, np.ones(2), faces, levels_by_height(faces, np.array([False, False])))
    assert metric.compute() == {"wider_hard": 1.0, "wider_easy": 1.0, "wider_medium": 1.0}


def test_who_finds_an_ignored_face_is_neither_right_nor_wrong():
    faces = np.array([[0.0, 0, 9, 9], [50, 50, 109, 109]])
    counts = np.array([[False, False, True], [True, True, True]])
    boxes = np.array([[0.0, 0, 9, 9], [50, 50, 109, 109], [52, 52, 109, 109], [200, 0, 230, 30]])
    outcomes = match_faces(boxes, faces, counts)
    np.testing.assert_array_equal(outcomes, [[2, 2, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    assert (match_faces(boxes, faces[:0], counts[:0]) == 2).all()
    assert match_faces(boxes[:0], faces, counts).shape == (0, 3)


def test_a_face_of_negative_width_is_overlapped_by_nothing():
    face = np.array([[1026.0, 474, 1024, 497]])
    boxes = np.array([[1020.0, 470, 1030, 500], [0, 0, 23, 0]])  # One of area 24, to its -24.
    assert (match_faces(boxes, face, np.ones((1, 3), dtype=bool)) == 0).all()


def test_thresholds_and_stretching_are_the_tools():
    assert THRESHOLDS[0] == 1 - 1 / 1000
    assert THRESHOLDS[-1] == 0
    np.testing.assert_allclose(scaled_scores(np.array([0.2, 0.4, 0.6])), [0, 0.5, 1])
    np.testing.assert_allclose(scaled_scores(np.array([-2.0, -1])), [0, 0.5])
    np.testing.assert_array_equal(scaled_scores(np.array([0.3, 0.3])), [1, 1])


def test_shares_give_the_numbers_of_the_whole():
    images = _random_images(7, count=9)
    whole, parts = WiderAp(), [WiderAp() for _ in range(3)]
    for image, part in zip(images, itertools.cycle(parts)):
        whole.add(*image)
        part.add(*image)
    merged = WiderAp()
    for part in parts:
        merged.merge(pickle.loads(pickle.dumps(part.state())))
    assert merged.compute() == whole.compute()
    assert WiderAp().compute() == {"wider_hard": 0.0}


def test_as_a_metric_it_scales_and_takes_flags(make_target, make_batch):
    # The image is twice as large as the network's input.
    box = [10.0, 10, 40, 40]
    target = make_target(
        [box, [60, 60, 90, 90]], [0, 0], difficult=[1], size=(200, 200), scale=(2.0, 2.0)
    )
    found = BoxPrediction(torch.tensor([box]) * 2, torch.tensor([0.9]), torch.tensor([0]))
    metric = WiderAp()
    metric.update([found], make_batch(target))
    assert metric.compute() == {"wider_easy": 1.0, "wider_medium": 1.0, "wider_hard": 1.0}


def test_as_a_metric_it_looks_the_truth_up(make_target, make_batch):
    face = np.array([[0.0, 0, 20, 20]])
    truth = [ImageTruth("0--Parade", "a", face, np.array([[False, False, True]]))]
    found = BoxPrediction(torch.tensor([[0.0, 0, 20, 20]]), torch.ones(1), torch.zeros(1).long())
    batch = make_batch(_named(make_target(), "WIDER_val/images/0--Parade/a.jpg"))
    metric = WiderAp(truth)
    metric.update([found], batch)
    assert metric.compute() == {"wider_hard": 1.0}
    stranger = make_batch(_named(make_target(), "images/0--Parade/b.jpg"))
    with pytest.raises(DataError, match=r"Received '0--Parade/b', .* Nearest: '0--Parade/a'"):
        metric.update([found], stranger)
    assert truth_of(Path("0--Parade/a.png"), {("0--Parade", "a"): truth[0]}) is truth[0]


def _named(target, path):
    from dataclasses import replace

    return replace(target, path=Path(path))
