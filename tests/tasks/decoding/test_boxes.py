import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flyweight.config.tasks import Suppression
from flyweight.tasks.decoding.boxes import clip_boxes, listed_boxes, suppress


def loop_suppress(boxes, scores, chosen):
    """Greedy suppression, class by class, one box at a time."""
    one = 1 if chosen.plus_one else 0
    survivors = []
    for label in range(scores.shape[1]):
        rows = [i for i in range(len(boxes)) if scores[i, label] >= chosen.score_threshold]
        rows = sorted(rows, key=lambda i: -scores[i, label])[: chosen.top_k]
        kept = []
        for row in rows:
            x0, y0, x1, y1 = boxes[row]
            overlaps = []
            for other in kept:
                a0, b0, a1, b1 = boxes[other]
                across = max(min(x1, a1) - max(x0, a0) + one, 0)
                down = max(min(y1, b1) - max(y0, b0) + one, 0)
                areas = [(x1 - x0 + one) * (y1 - y0 + one), (a1 - a0 + one) * (b1 - b0 + one)]
                overlaps.append(across * down / max(sum(areas) - across * down, 1e-12))
            if all(overlap <= chosen.iou_threshold for overlap in overlaps):
                kept.append(row)
        survivors += [(-scores[row, label], row, label) for row in kept]
    return [(row, label) for _, row, label in sorted(survivors)[: chosen.keep]]


@pytest.mark.parametrize("plus_one", [False, True])
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_suppression_is_greedy_by_class(plus_one, seed, top_k, keep):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(12, 2, generator=generator) * 20
    sizes = torch.rand(12, 2, generator=generator) * 12 + 1
    boxes = torch.cat((corners, corners + sizes), dim=1)
    scores = torch.rand(12, 3, generator=generator)
    chosen = Suppression(
        score_threshold=0.2, iou_threshold=0.45, top_k=top_k, keep=keep, plus_one=plus_one
    )
    expected = loop_suppress(boxes.double().numpy(), scores.double().numpy(), chosen)
    found_boxes, found_scores, found_labels = suppress(boxes, scores, chosen)
    rows = [row for row, _ in expected]
    assert found_labels.tolist() == [label for _, label in expected]
    assert torch.equal(found_boxes, boxes[rows].reshape(-1, 4))
    assert found_scores.tolist() == [scores[row, label].item() for row, label in expected]


def test_the_last_pixel_tips_the_scale_for_small_boxes():
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]])
    scores = torch.tensor([[0.9], [0.8]])
    # 2 of 6 square pixels, with the last pixels 6 of 12.
    assert len(suppress(boxes, scores, Suppression())[0]) == 2
    assert len(suppress(boxes, scores, Suppression(plus_one=True))[0]) == 1


def test_nothing_above_the_threshold():
    boxes, scores, labels = suppress(torch.zeros(5, 4), torch.zeros(5, 2), Suppression())
    assert boxes.shape == (0, 4)
    assert scores.shape == labels.shape == (0,)
    assert labels.dtype == torch.int64


def test_settings_are_checked():
    with pytest.raises(ValidationError):
        Suppression(score_threshold=1.5)
    with pytest.raises(ValidationError):
        Suppression(nms_eta=1)
    assert Suppression().model_dump() == {
        "score_threshold": 0.01,
        "iou_threshold": 0.45,
        "top_k": 1000,
        "keep": 100,
        "plus_one": False,
    }


def test_boxes_are_moved_into_their_picture():
    boxes = torch.tensor([[-4.0, 2, 30, 90], [1, 1, 2, 2]])
    assert clip_boxes(boxes, (40, 20)).tolist() == [[0, 2, 20, 40], [1, 1, 2, 2]]


def test_what_is_listed_scores_enough(make_prediction):
    prediction = make_prediction([(1, 2, 3, 4), (5, 6, 7, 8)], [0.75, 0.25], [1, 0])
    listed = listed_boxes(prediction, ("cat", "dog"), threshold=0.5)
    assert listed == [{"label": "dog", "score": 0.75, "box": [1.0, 2.0, 3.0, 4.0]}]
