import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode

from flyweight.config.data import AugmentConfig
from flyweight.data.samples.face_crop import ANCHOR_SCALES, FaceCrop
from flyweight.data.samples.sampling import keyed_random
from flyweight.data.samples.transforms import make_sample, resize_sample, training_transforms

TARGET = 160


def _sample(image, boxes):
    count = len(boxes)
    return make_sample(
        image,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(count),
        weights=torch.ones(count),
        difficult=torch.zeros(count, dtype=torch.bool),
        crowd=torch.zeros(count, dtype=torch.bool),
    )


def _painted(height, width, box):
    image = torch.full((3, height, width), 90, dtype=torch.uint8)
    left, top, right, bottom = box
    image[0, top:bottom, left:right] = 255
    return _sample(image, [box])


def _params(sample, seed, target=TARGET):
    with keyed_random(seed):
        return FaceCrop((target, target)).make_params(list(sample.values()))


def _is_anchored(seed):
    with keyed_random(seed):
        return float(torch.rand((), dtype=torch.float64)) > 0.5


def _red_box(image):
    red = image.as_subclass(torch.Tensor)[0] > 170
    rows, columns = torch.where(red.any(1))[0], torch.where(red.any(0))[0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@given(
    seed=st.integers(0, 10**6),
    side=st.tuples(st.integers(6, 150), st.integers(6, 110)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=80)
def test_boxes_stay_on_their_pixels(seed, side, place):
    left, top = int(place[0] * (160 - side[0])), int(place[1] * (120 - side[1]))
    sample = _painted(120, 160, (left, top, left + side[0], top + side[1]))
    augment = AugmentConfig.off().model_copy(update={"face_crop": True})
    vary = training_transforms(augment, fill=(0, 0, 0), size=(TARGET, TARGET))
    with keyed_random(seed):
        varied = vary(sample)
    assert varied["boxes"].canvas_size == tuple(varied["image"].shape[-2:])
    assert varied["image"].dtype == torch.uint8
    (box,) = varied["boxes"].tolist()
    if varied["image"].shape[-1] in (160, 120) and max(side) < 8:
        return  # A face of a few pixels has no sharp edge left.
    np.testing.assert_allclose(box, _red_box(varied["image"]), atol=2)
    resized = resize_sample(varied, (TARGET, TARGET), InterpolationMode.BILINEAR, smooth=True)
    assert resized["image"].shape == (3, TARGET, TARGET)


@given(seed=st.integers(0, 10**6), width=st.integers(10, 300), height=st.integers(10, 300))
def test_an_anchored_face_comes_out_at_an_anchor_of_its_size_or_below(seed, width, height):
    sample = _sample(
        torch.zeros(3, 320, 480, dtype=torch.uint8), [[50, 10, 50 + width, 10 + height]]
    )
    params = _params(sample, seed)
    if not params or not _is_anchored(seed):
        return
    out = width * TARGET / params["side"]
    geometric = (width * height) ** 0.5
    nearest = min(sum(scale < geometric for scale in ANCHOR_SCALES), 2)
    ranges = [(scale / 2, 2 * scale) for scale in ANCHOR_SCALES[: nearest + 1]]
    low, high = ranges[-1]
    ranges[-1] = (low, min(high, 2 * geometric))
    slack = 1 + 2 / params["side"]  # The side is cut to whole pixels.
    assert any(min(r) / slack <= out <= max(r) * slack for r in ranges)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_a_square_crop_holds_a_whole_face(seed, count):
    random = np.random.default_rng(seed)
    low = random.uniform(0, (400, 240), (count, 2))
    faces = np.concatenate([low, low + random.uniform(5, 80, (count, 2))], axis=1)
    sample = _sample(torch.zeros(3, 320, 480, dtype=torch.uint8), faces.tolist())
    params = _params(sample, seed)
    if not params or _is_anchored(seed):
        return
    left, top, side = params["left"], params["top"], params["side"]
    assert 0.3 * 320 - 1 <= side <= 320
    assert left >= 0
    assert top >= 0
    assert left + side <= 480
    assert top + side <= 320
    low, high = faces[:, :2], faces[:, 2:]
    whole = ((low >= [left, top]) & (high <= [left + side, top + side])).all(axis=1)
    assert whole.any()
    centres = (low + high) / 2
    inside = ((centres >= [left, top]) & (centres <= [left + side, top + side])).all(axis=1)
    assert not (params["kept"].numpy() & ~inside).any()
    # Whole faces stay unless they are smaller than 8x8 at the network's size.
    areas = (high - low).prod(axis=1) * (TARGET / side) ** 2
    np.testing.assert_array_equal(params["kept"].numpy()[whole], areas[whole] >= 64)


def test_both_kinds_are_drawn_equally():
    sample = _painted(120, 160, (40, 30, 90, 80))
    beyond = [
        "side" in p and (p["left"] < 0 or p["top"] < 0 or p["side"] > 120)
        for p in (_params(sample, seed) for seed in range(300))
    ]
    assert 0.3 < np.mean([_is_anchored(seed) for seed in range(300)]) < 0.7
    assert 0.1 < np.mean(beyond) < 0.6


def test_a_huge_face_costs_no_more_than_the_input():
    """At the smallest anchor its crop would be 40 thousand pixels wide."""
    sample = _painted(900, 1000, (10, 20, 810, 870))
    widths = []
    for seed in range(60):
        params = _params(sample, seed, target=640)
        if params.get("side", 0) > 2000:
            cut = FaceCrop((640, 640)).transform(sample["image"], params)
            assert cut.shape == (3, 640, 640)
            widths.append(params["side"])
    assert max(widths) > 10_000


def test_without_faces_nothing_happens():
    empty = _sample(torch.zeros(3, 20, 30, dtype=torch.uint8), [])
    assert _params(empty, 1) == {}
    crop = FaceCrop((TARGET, TARGET))
    assert crop.transform(empty["image"], {}) is empty["image"]
    # Nor where every crop would leave a face of less than 8x8 pixels.
    tiny = _sample(torch.zeros(3, 300, 300, dtype=torch.uint8), [[5, 5, 7, 7]])
    assert all(_params(tiny, seed) == {} for seed in range(10) if not _is_anchored(seed))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_crop(seed):
    sample = _painted(120, 160, (40, 30, 90, 80))
    first, second = (_params(sample, seed) for _ in range(2))
    assert {k: v for k, v in first.items() if k != "kept"} == {
        k: v for k, v in second.items() if k != "kept"
    }
