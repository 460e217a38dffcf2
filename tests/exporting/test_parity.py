import math

import pytest
import torch

from flyweight.exporting.parity import detection_errors, label_errors, relative_error


def detections(boxes, scores, labels, keep=6):
    count = len(scores)
    padded = {
        "boxes": torch.zeros(1, keep, 4),
        "scores": torch.zeros(1, keep),
        "labels": torch.full((1, keep), -1),
        "counts": torch.tensor([count]),
    }
    if count:
        padded["boxes"][0, :count] = torch.tensor(boxes, dtype=torch.float32)
        padded["scores"][0, :count] = torch.tensor(scores)
        padded["labels"][0, :count] = torch.tensor(labels)
    return padded


BOXES = [[0, 0, 10, 10], [50, 50, 80, 90], [20, 20, 30, 30]]
BASE = detections(BOXES, [0.9, 0.5, 0.5], [0, 1, 1])


def errors(received, expected=BASE, tolerance=1e-3):
    return detection_errors(expected, received, tolerance)


def test_equal_detections_have_no_error():
    assert errors(BASE) == {"boxes": 0.0, "scores": 0.0, "labels": 0.0, "counts": 0.0}
    nothing = detections([], [], [])
    assert max(errors(nothing, nothing).values()) == 0.0


def test_the_order_of_equal_scores_does_not_matter():
    swapped = detections([BOXES[0], BOXES[2], BOXES[1]], [0.9, 0.5, 0.5], [0, 1, 1])
    assert max(errors(swapped).values()) == 0.0


def test_a_moved_box_is_a_box_error():
    moved = detections([[0, 0, 10, 10.45], *BOXES[1:]], [0.9, 0.5, 0.5], [0, 1, 1])
    found = errors(moved)
    assert found["boxes"] == pytest.approx(0.45 / 90, rel=1e-4)
    assert found["labels"] == 0.0


def test_a_changed_score_is_a_score_error():
    assert errors(detections(BOXES, [0.9, 0.504, 0.5], [0, 1, 1]))["scores"] == pytest.approx(
        0.004 / 0.9, rel=1e-3
    )


def test_a_wrong_label_or_a_lost_box_is_a_label_error():
    assert errors(detections(BOXES, [0.9, 0.5, 0.5], [1, 1, 1]))["labels"] == pytest.approx(2 / 6)
    lost = detections(BOXES[:2], [0.9, 0.5], [0, 1])
    assert errors(lost)["labels"] == pytest.approx(1 / 5)
    assert errors(detections([], [], []))["labels"] == 1.0


def test_ties_at_the_end_of_a_full_list_are_explained():
    one = detections(BOXES, [0.9, 0.5, 0.5], [0, 1, 1], keep=3)
    other = detections([*BOXES[:2], [5, 5, 9, 9]], [0.9, 0.5, 0.5], [0, 1, 1], keep=3)
    assert errors(other, one)["labels"] == 0.0
    roomy = [
        detections(*values, keep=4)
        for values in (
            (BOXES, [0.9, 0.5, 0.5], [0, 1, 1]),
            ([*BOXES[:2], [5, 5, 9, 9]], [0.9, 0.5, 0.5], [0, 1, 1]),
        )
    ]
    assert errors(roomy[1], roomy[0])["labels"] > 0.0


def test_pictures_without_a_batch_are_compared_too():
    single = {name: tensor[0] for name, tensor in BASE.items() if name != "counts"}
    assert max(errors(single, single).values()) == 0.0
    worse = {**single, "labels": single["labels"].clone()}
    worse["labels"][0] = 5
    assert errors(worse, single)["labels"] > 0


def test_other_shapes_are_infinitely_wrong():
    assert set(errors(detections(BOXES, [0.9, 0.5, 0.5], [0, 1, 1], keep=9)).values()) == {math.inf}
    assert relative_error(torch.zeros(2), torch.zeros(3)) == math.inf
    assert relative_error(torch.tensor([math.nan]), torch.tensor([math.nan])) == math.inf


def test_an_output_of_zeros_is_compared_absolutely():
    assert relative_error(torch.zeros(2), torch.tensor([0.0, 0.25])) == 0.25
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0.0


def test_labels_may_differ_where_scores_tie():
    labels = torch.zeros(1, 100, 100, dtype=torch.uint8)
    other = labels.clone()
    other[0, 0, :40] = 3
    assert label_errors({"labels": labels}, {"labels": other}) == {"labels": 0.0}
    other[0, :2] = 1
    assert label_errors({"labels": labels}, {"labels": other}) == {"labels": 0.02}
    assert label_errors({"labels": labels}, {"labels": labels[0]}) == {"labels": math.inf}
