import math

import pytest
import torch

from flyweight.exporting.parity import detection_errors, label_errors, relative_error, set_errors


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


def rows(seed, count=40):
    generator = torch.Generator().manual_seed(seed)
    return {
        "maps": torch.rand(1, 5, generator=generator),
        "boxes": torch.rand(2, count, 4, generator=generator) * 100,
        "logits": torch.randn(2, count, 3, 6, generator=generator),
    }


SETS = (("boxes", "logits"),)


def test_rows_of_a_set_may_stand_in_any_order():
    expected = rows(0)
    order = torch.randperm(40)
    received = expected | {name: expected[name][:, order] for name in SETS[0]}
    assert set_errors(expected, received, SETS, 1e-3) == {"maps": 0, "boxes": 0, "logits": 0}
    apart = received | {"logits": received["logits"][:, order]}
    assert set_errors(expected, apart, SETS, 1e-3)["boxes"] > 0.5


def test_what_is_no_set_keeps_its_order():
    expected = rows(1)
    received = expected | {"maps": expected["maps"].flip(1)}
    assert set_errors(expected, received, SETS, 1e-3)["maps"] > 0.1


def test_errors_of_paired_rows_and_rows_without_a_partner_are_told():
    expected = rows(2)
    nudged = expected | {"logits": expected["logits"] * 1.004}
    assert set_errors(expected, nudged, SETS, 1e-3)["logits"] == pytest.approx(0.004, rel=0.2)
    replaced = expected["boxes"].clone()
    replaced[0, 0] += 30  # one of eighty: a tie
    assert set_errors(expected, expected | {"boxes": replaced}, SETS, 1e-3)["boxes"] < 1e-3
    replaced[0, :8] += 30
    assert set_errors(expected, expected | {"boxes": replaced}, SETS, 1e-3)["boxes"] == 0.1
    short = expected | {"boxes": expected["boxes"][:, :39]}
    assert set_errors(expected, short, SETS, 1e-3)["boxes"] == math.inf


def test_masks_of_the_same_detections_are_compared():
    expected = {
        "boxes": torch.tensor([[[0.0, 0, 9, 9], [20, 20, 30, 30], [0, 0, 0, 0]]]),
        "scores": torch.tensor([[0.9, 0.8, 0.0]]),
        "labels": torch.tensor([[1, 2, -1]]),
        "counts": torch.tensor([2]),
        "masks": torch.rand(1, 3, 4, 4) + 0.5,
    }
    swapped = {name: value[:, [1, 0, 2]] for name, value in expected.items() if value.dim() > 1}
    assert max(detection_errors(expected, expected | swapped, 1e-3).values()) == 0
    wrong = expected | swapped | {"masks": expected["masks"]}
    assert detection_errors(expected, wrong, 1e-3)["masks"] > 0.1


def test_labels_may_differ_where_scores_tie():
    labels = torch.zeros(1, 100, 100, dtype=torch.uint8)
    other = labels.clone()
    other[0, 0, :40] = 3
    assert label_errors({"labels": labels}, {"labels": other}) == {"labels": 0.0}
    other[0, :2] = 1
    assert label_errors({"labels": labels}, {"labels": other}) == {"labels": 0.02}
    assert label_errors({"labels": labels}, {"labels": labels[0]}) == {"labels": math.inf}


def scattered(count, scores, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    boxes = torch.cat((corners, corners + 5), 1).tolist()
    return detections(boxes, scores, [0] * count, keep=2 * count)


def test_of_many_equals_some_may_be_others():
    ours, other = scattered(40, [0.1] * 40), scattered(40, [0.1] * 40, seed=1)
    theirs = {**ours, "boxes": ours["boxes"].clone()}
    theirs["boxes"][0, 30:40] = other["boxes"][0, 30:40]
    assert detection_errors(ours, theirs, 1e-3)["labels"] == 0
    assert detection_errors(ours, other, 1e-3)["labels"] == 1, "none of them is the same"
    spread = torch.linspace(0.2, 0.9, 40).flip(0).tolist()
    sure = {**theirs, "scores": scattered(40, spread)["scores"]}
    trained = {**ours, "scores": sure["scores"]}
    assert detection_errors(trained, sure, 1e-3)["labels"] == pytest.approx(0.25)


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("expected", "received", "error"),
    [
        ([1.0, INF, -INF], [1.5, INF, -INF], 0.5),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, INF], [1.0, 5.0], INF),
        ([1.0, 5.0], [1.0, INF], INF),
        ([INF, -INF], [INF, -INF], 0.0),
        ([2.0, NAN], [1.0, NAN], 0.5),
        ([2.0, NAN], [2.0, 1.0], INF),
        ([2.0, 1.0], [2.0, NAN], INF),
        ([2.0, NAN, NAN], [1.0, NAN, NAN], 0.5),
        ([0.0, NAN], [0.0, NAN], INF),
        ([INF, NAN], [INF, NAN], INF),
        ([2.0, -3.4028235e38], [1.0, -3.4028235e38], 0.5),
        ([2.0, -3.4028235e38], [2.0, -INF], 0.0),
        ([2.0, -3.4028235e38], [2.0, 3.4028235e38], INF),
    ],
)
def test_values_that_are_not_finite(expected, received, error):
    found = relative_error(torch.tensor(expected), torch.tensor(received))
    assert found == pytest.approx(error)


def test_truth_values_are_equal_or_not():
    one, other = torch.tensor([True, False]), torch.tensor([True, True])
    assert relative_error(one, one) == 0
    assert relative_error(one, other) == 1
    assert relative_error(~other, one) == 1
    assert relative_error(torch.tensor([3j]), torch.tensor([3j + 1.5])) == 0.5
