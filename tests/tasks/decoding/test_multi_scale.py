import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flyweight.tasks.decoding.multi_scale import (
    Pass,
    as_prediction,
    detect_once,
    find_in,
    largest_scale,
    passes_for,
    vote,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), 1.32),  # sqrt(678 / 1024 * 4) = 1.627; cut to 1.62, less 0.3
        ((768, 1024), 1.47),  # 1.879: 1.57, from 1.5 on less 0.1
        ((480, 640), 2.5),  # 3.006: 2.70, less 0.2
        ((400, 480), 3.2),  # 3.803: 3.50, less 0.3
        ((300, 400), 4.11),  # 4.810: 4.51, less 0.4
        ((100, 100), 15.86),  # 16.664: 16.36, less 0.5
        ((2000, 3000), 0.38),
        ((6000, 9000), 0.1),  # would be negative
    ],
)
def test_the_largest_scale_by_hand(size, expected):
    assert largest_scale(*size) == pytest.approx(expected, abs=1e-9)


def test_the_looks_at_a_large_picture():
    assert largest_scale(2000, 3000) == pytest.approx(0.38)
    shrink = largest_scale(2000, 3000)
    assert passes_for(2000, 3000) == (
        Pass(shrink),
        Pass(shrink, flip=True),
        Pass(shrink / 2, keep="large"),
        Pass(0.75 * shrink, keep="large"),
        Pass(0.25, keep="large"),
    )


def test_the_looks_at_a_small_picture():
    most = largest_scale(300, 400)
    small = (2.0, 4.0, most)
    assert passes_for(300, 400) == (
        Pass(1.0),
        Pass(1.0, flip=True),
        Pass(0.5, keep="large"),
        *(Pass(scale, keep="small") for scale in small),
        Pass(0.25, keep="large"),
        Pass(0.75, keep="large"),
        *(Pass(scale, keep="small") for scale in (1.25, 1.5, 1.75)),
    )


@given(st.integers(20, 5000), st.integers(20, 5000))
def test_the_looks_are_those_of_the_rules(height, width):
    """The sets det0..det4 of the originals' face_eval, written down again."""
    most = largest_scale(height, width)
    half = 0.5 if most >= 0.75 else most / 2
    expected = [(min(1, most), False, "all"), (min(1, most), True, "all"), (half, False, "large")]
    bigger = []
    if most > 1:
        bigger.append(min(2, most))
        power = 4
        while most > 2 and power < most:
            bigger.append(power)
            power *= 2
        bigger += [most] if most > 2 else []
    else:
        bigger.append((half + most) / 2)
    bigger_keep = "small" if bigger[0] > 1 else "large"
    expected += [(scale, False, bigger_keep) for scale in bigger]
    pyramid = [0.25] + [scale for scale in (0.75, 1.25, 1.5, 1.75) if scale <= most]
    expected += [(scale, False, "small" if scale > 1 else "large") for scale in pyramid]
    assert [(p.scale, p.flip, p.keep) for p in passes_for(height, width)] == expected
    assert height * width * most**2 <= 678 * 1024 * 4 or most == 0.1


def slow_vote(rows, drop_singletons):
    """Rows x1 y1 x2 y2 score, one at a time."""
    left = sorted(rows, key=lambda row: -row[4])
    found = []
    while left:
        first = left[0]
        group = [row for row in left if row is first or _iou(first, row) >= 0.3]
        left = [row for row in left if not any(row is one for one in group)]
        if drop_singletons and len(group) == 1 and left:
            continue
        weight = sum(row[4] for row in group)
        mean = [sum(row[i] * row[4] for row in group) / weight for i in range(4)]
        found.append([*mean, first[4]])
    return [row for row in found[:750] if row[4] >= 0.01]


def _iou(one, other):
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]) + 1)
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


@given(
    st.lists(
        st.tuples(*(st.integers(0, 40),) * 2, *(st.integers(2, 30),) * 2, st.integers(1, 99)),
        max_size=12,
    ),
    st.booleans(),
)
def test_the_vote_is_the_slow_one(rows, drop_singletons):
    rows = [(x, y, x + w, y + h, score / 1000) for x, y, w, h, score in rows]
    values = np.array(rows, dtype=float).reshape(-1, 5)
    boxes, scores = vote(values[:, :4], values[:, 4], drop_singletons=drop_singletons)
    expected = np.array(slow_vote(rows, drop_singletons)).reshape(-1, 5)
    np.testing.assert_allclose(boxes, expected[:, :4])
    np.testing.assert_allclose(scores, expected[:, 4])


def test_lonely_boxes_stay_unless_dropped():
    boxes = np.array([[0.0, 0, 20, 20], [100, 100, 120, 120], [1, 0, 21, 20], [200, 0, 220, 9]])
    scores = np.array([0.9, 0.8, 0.6, 0.5])
    kept, values = vote(boxes, scores)
    assert values.tolist() == [0.9, 0.8, 0.5]
    np.testing.assert_allclose(kept[0], [0.4, 0, 20.4, 20])
    _, values = vote(boxes, scores, drop_singletons=True)
    assert values.tolist() == [0.9, 0.5]  # The last group stays even alone: so the originals.


def test_at_most_750_and_none_too_weak():
    corners = np.stack([np.arange(800.0) * 10, np.zeros(800)], axis=1)
    boxes = np.concatenate([corners, corners + 4], axis=1)
    assert len(vote(boxes, np.linspace(1, 0.5, 800))[0]) == 750
    assert vote(boxes, np.full(800, 0.009))[0].shape == (0, 4)
    assert vote(boxes[:2], np.zeros(2))[1].shape == (0,)
    assert vote(np.zeros((0, 4)), np.zeros(0))[0].shape == (0, 4)


def bright_parts(image):
    """A detector: a box around every bright part, which stand in rows of their own."""
    bright = (image[0] > 128).numpy()
    rows = bright.any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows.astype(int), [0]])))
    boxes = []
    for top, bottom in zip(edges[::2], edges[1::2], strict=True):
        columns = np.flatnonzero(bright[top:bottom].any(axis=0))
        boxes.append([columns[0], top, columns[-1] + 1, bottom])
    return np.array(boxes, dtype=float).reshape(-1, 4), np.full(len(boxes), 0.5)


@pytest.fixture
def image():
    image = torch.zeros((3, 240, 320), dtype=torch.uint8)
    image[:, 20:60, 30:80] = 255  # 50 wide, 40 high
    image[:, 100:220, 100:260] = 255  # 160 wide, 120 high
    return image


BOXES = np.array([[30, 20, 80, 60], [100, 100, 260, 220]])


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.48, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_every_look_comes_back_in_pixels_of_the_picture(image, scale, flip):
    boxes, scores = detect_once(bright_parts, image, Pass(scale, flip=flip))
    np.testing.assert_allclose(boxes, BOXES, atol=1 / scale + 1e-9)
    assert scores.tolist() == [0.5, 0.5]


def test_looks_keep_what_they_are_good_for(image):
    small, _ = detect_once(bright_parts, image, Pass(2.0, keep="small"))
    np.testing.assert_array_equal(small, BOXES[:1])
    boxes = np.array([[0.0, 0, 29, 10], [0, 0, 30, 10], [0, 0, 500, 98], [0, 0, 500, 99]])

    def detect(copy):
        assert copy.shape == (3, 240, 320)
        return boxes, np.ones(4)

    # A side from 0 to 29 is 30 pixels long, as the originals counted.
    assert detect_once(detect, image, Pass(1.0, keep="large"))[0].tolist() == boxes[1:].tolist()
    assert detect_once(detect, image, Pass(1.0, keep="small"))[0].tolist() == boxes[:3].tolist()


def test_all_looks_together_find_both(image):
    boxes, scores = find_in(bright_parts, image, passes_for(240, 320))
    np.testing.assert_allclose(boxes, BOXES, atol=1)
    assert scores.tolist() == [0.5, 0.5]
    nothing = find_in(bright_parts, torch.zeros_like(image), passes_for(240, 320))
    assert nothing[0].shape == (0, 4)


def test_a_tiny_picture_stays_a_picture():
    seen = []

    def detect(copy):
        seen.append(tuple(copy.shape))
        return np.zeros((0, 4)), np.zeros(0)

    find_in(detect, torch.zeros((3, 9, 3), dtype=torch.uint8), [Pass(0.25)])
    assert seen == [(3, 2, 1)]
    assert math.isfinite(largest_scale(1, 1))


def test_what_is_found_becomes_a_prediction():
    boxes, scores, labels = as_prediction(BOXES.astype(float), np.array([0.9, 0.5]))
    assert boxes.dtype == scores.dtype == torch.float32
    assert labels.tolist() == [0, 0]
