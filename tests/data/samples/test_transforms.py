import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from flyweight.config.data import AugmentConfig
from flyweight.data.samples.sampling import keyed_random
from flyweight.data.samples.transforms import (
    INTERPOLATIONS,
    ROWS,
    ColorDistort,
    OverlapCrop,
    draw_mixup_share,
    make_sample,
    mixup,
    resize_sample,
    training_transforms,
)

RED = torch.tensor([250, 3, 3], dtype=torch.uint8)


def _sample(image, boxes, labels=None):
    count = len(boxes)
    return make_sample(
        image,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels if labels is not None else range(count)),
        weights=torch.ones(count),
        difficult=torch.zeros(count, dtype=torch.bool),
        crowd=torch.zeros(count, dtype=torch.bool),
    )


def _painted(height, width, box):
    image = torch.full((3, height, width), 90, dtype=torch.uint8)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = RED[:, None, None]
    return _sample(image, [box], [4])


def _red_box(image):
    """Return the box around all red pixels, found without knowing how they got there."""
    plain = image.as_subclass(torch.Tensor).int()
    red = (plain[0] > 170) & (plain[1] < 47)
    rows, columns = torch.where(red.any(1))[0], torch.where(red.any(0))[0]
    if not len(rows):
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


CASES = {
    "expand": AugmentConfig.off().model_copy(update={"expand": True}),
    "crop": AugmentConfig.off().model_copy(update={"crop": True}),
    "flip": AugmentConfig.off().model_copy(update={"flip": True}),
    "all": AugmentConfig(color_distort=False),
}


@pytest.mark.parametrize("name", CASES)
@given(
    seed=st.integers(0, 10**6),
    side=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=60, deadline=None)
def test_boxes_stay_on_their_pixels(name, seed, side, place):
    left, top = int(place[0] * (90 - side[0])), int(place[1] * (70 - side[1]))
    sample = _painted(70, 90, (left, top, left + side[0], top + side[1]))
    with keyed_random(seed):
        varied = training_transforms(CASES[name], fill=(120, 110, 100), size=(64, 64))(sample)
    assert varied["boxes"].canvas_size == tuple(varied["image"].shape[-2:])
    (box,) = varied["boxes"].tolist()
    assert box == _red_box(varied["image"])
    assert varied["labels"].tolist() == [4]


@pytest.mark.parametrize(("interpolation", "smooth"), INTERPOLATIONS)
@pytest.mark.parametrize("size", [(35, 180), (140, 45), (70, 90)])
def test_resized_boxes_stay_on_their_pixels(interpolation, smooth, size):
    sample = _painted(70, 90, (20, 10, 60, 50))
    resized = resize_sample(sample, size, interpolation, smooth=smooth)
    assert tuple(resized["image"].shape) == (3, *size)
    found = torch.tensor(_red_box(resized["image"]))
    assert (resized["boxes"][0] - found).abs().max() <= 1.5


def test_boxes_below_a_pixel_go_with_all_that_belongs_to_them():
    sample = _sample(torch.zeros(3, 80, 80, dtype=torch.uint8), [[0, 0, 4, 40], [0, 0, 40, 40]])
    sample["weights"] = torch.tensor([0.25, 0.75])
    sample["difficult"] = torch.tensor([False, True])
    sample["crowd"] = torch.tensor([True, False])
    resized = resize_sample(sample, (8, 8), InterpolationMode.BILINEAR, smooth=False)
    assert resized["boxes"].tolist() == [[0, 0, 4, 4]]
    rows = {name: resized[name].tolist() for name in ROWS}
    assert rows == {"labels": [1], "weights": [0.75], "difficult": [True], "crowd": [False]}


def test_mixup_blends_pictures_and_weighs_boxes():
    first = _sample(torch.full((3, 4, 6), 200, dtype=torch.uint8), [[0, 0, 1, 1]], [3])
    second = _sample(torch.full((3, 5, 2), 100, dtype=torch.uint8), [[0, 1, 2, 2]] * 2, [1, 2])
    mixed = mixup(first, second, 0.75)
    expected = torch.zeros(5, 6)
    expected[:4] += 150
    expected[:, :2] += 25
    assert torch.equal(mixed["image"].as_subclass(torch.Tensor)[1].float(), expected)
    assert mixed["boxes"].canvas_size == (5, 6)
    assert mixed["boxes"].tolist() == [[0, 0, 1, 1], [0, 1, 2, 2], [0, 1, 2, 2]]
    assert mixed["labels"].tolist() == [3, 1, 2]
    assert mixed["weights"].tolist() == [0.75, 0.25, 0.25]
    assert mixup(first, second, 1.0) is first
    assert mixup(first, second, 0.0) is second


def test_mixup_shares_are_beta_distributed():
    with keyed_random(0):
        shares = [draw_mixup_share(1.5) for _ in range(2000)]
    assert stats.kstest(shares, stats.beta(1.5, 1.5).cdf).pvalue > 0.01


def _random_image():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 9, 11), dtype=np.uint8))


def _step_by_step(image, seed):
    """The same draws, applied one after another to floats, as the originals do."""
    pixels = image.permute(1, 2, 0).double().numpy()
    grey = np.array([0.299, 0.587, 0.114])
    to_yiq = np.array([grey, [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    with keyed_random(seed):
        for step in torch.randperm(4).tolist():
            chance, amount = torch.rand(2).tolist()
            factor = 0.5 + amount
            if chance >= 0.5:
                continue
            if step == 0:
                angle = np.radians(18 * (2 * amount - 1))
                yiq = pixels @ to_yiq.T
                chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(1j * angle)
                yiq = np.stack([yiq[..., 0], chroma.real, chroma.imag], axis=-1)
                pixels = yiq @ np.linalg.inv(to_yiq).T
            elif step == 1:
                pixels = factor * pixels + (1 - factor) * (pixels @ grey)[..., None]
            elif step == 2:
                pixels = factor * pixels + (1 - factor) * (pixels @ grey).mean()
            else:
                pixels = factor * pixels
    return np.clip(pixels, 0, 255)


@pytest.mark.parametrize("seed", range(40))
def test_color_distort_is_its_steps_in_one(seed):
    image = _random_image()
    with keyed_random(seed):
        sample = ColorDistort()(_sample(image, [[1, 2, 3, 4]]))
    found = sample["image"].as_subclass(torch.Tensor).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, _step_by_step(image, seed), atol=0.52)
    assert sample["boxes"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("step", "reference"),
    [
        (1, transform.adjust_saturation),
        (2, transform.adjust_contrast),
        (3, transform.adjust_brightness),
    ],
)
def test_color_distort_agrees_with_torchvision_on_single_steps(step, reference):
    """Where only one step was drawn, torchvision's own adjustment gives nearly the same."""
    image = _random_image()
    found = 0
    for seed in range(400):
        with keyed_random(seed):
            draws = [(s, *torch.rand(2).tolist()) for s in torch.randperm(4).tolist()]
        drawn = [(s, 0.5 + amount) for s, chance, amount in draws if chance < 0.5]
        if len(drawn) != 1 or drawn[0][0] != step:
            continue
        found += 1
        with keyed_random(seed):
            distorted = ColorDistort()(_sample(image, []))["image"].as_subclass(torch.Tensor)
        assert (distorted.int() - reference(image, drawn[0][1]).int()).abs().max() <= 2
    assert found >= 5


def test_colour_ranges_and_the_two_orders_of_ssd():
    """BlazeFace's reader: brightness within an eighth, in one of two orders."""
    augment = AugmentConfig(
        brightness=(0.875, 1.125), saturation=(1, 1), contrast=(1, 1), hue_degrees=0
    )
    scales = []
    for seed in range(200):
        with keyed_random(seed):
            params = ColorDistort(augment).make_params([tv_tensors.Image(_random_image())])
        scale = params["matrix"][0, 0].item()
        torch.testing.assert_close(params["matrix"], scale * torch.eye(3), atol=1e-5, rtol=0)
        scales.append(scale)
    assert 0.875 <= min(scales) < 0.9
    assert 1.1 < max(scales) <= 1.125
    ordered = ColorDistort(AugmentConfig(distort_in_order=True))
    orders = set()
    for seed in range(20):
        with keyed_random(seed):
            orders.add(tuple(ordered._order()))
    assert orders == {(3, 2, 1, 0), (3, 1, 0, 2)}


def test_a_crop_can_be_insisted_on():
    sample = _sample(torch.zeros(3, 70, 90, dtype=torch.uint8), [[10, 10, 60, 50]])
    for allow_none, share in ((True, (0.05, 0.6)), (False, (0, 0.05))):
        left_alone = 0
        for seed in range(60):
            with keyed_random(seed):
                crop = OverlapCrop(allow_none=allow_none)
                left_alone += crop.make_params(list(sample.values())) == {}
        assert share[0] <= left_alone / 60 <= share[1]


def test_half_of_each_colour_step_is_left_out():
    draws = []
    for seed in range(600):
        with keyed_random(seed):
            params = ColorDistort().make_params(list(_sample(_random_image(), []).values()))
        draws.append(torch.equal(params["matrix"], torch.eye(3)))
    assert 0.03 < np.mean(draws) < 0.1  # One in sixteen.


def _iou(box, crop):
    sides = np.minimum(box[2:], crop[2:]) - np.maximum(box[:2], crop[:2])
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (np.prod(box[2:] - box[:2]) + np.prod(crop[2:] - crop[:2]) - common)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_crops_obey_the_rules(seed, count):
    random = np.random.default_rng(seed)
    low = random.uniform(0, (70, 50), (count, 2))
    boxes = np.concatenate([low, low + random.uniform(3, 20, (count, 2))], axis=1)
    sample = _sample(torch.zeros(3, 70, 90, dtype=torch.uint8), boxes.tolist())
    with keyed_random(seed):
        params = OverlapCrop().make_params(list(sample.values()))
    if not params:
        return
    top, left, height, width = (params[name] for name in ("top", "left", "height", "width"))
    assert top >= 0
    assert left >= 0
    assert top + height <= 70
    assert left + width <= 90
    relative_height, relative_width = height / 70, width / 90
    assert 0.28 <= np.sqrt(relative_height * relative_width) <= 1
    assert 0.45 <= relative_width / relative_height <= 2.2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centres >= (left, top)) & (centres < (left + width, top + height))
    assert params["kept"].tolist() == inside.all(axis=1).tolist()
    assert params["kept"].any()


def test_the_first_valid_candidate_of_the_first_threshold_is_taken():
    """A slow second implementation, one candidate at a time, chooses the same crops."""
    boxes = np.array([[10.0, 10, 50, 60], [55, 20, 85, 40]])
    sample = _sample(torch.zeros(3, 70, 90, dtype=torch.uint8), boxes.tolist())
    thresholds = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)
    kinds = set()
    for seed in range(120):
        with keyed_random(seed):
            params = OverlapCrop().make_params(list(sample.values()))
        with keyed_random(seed):
            expected, kind = _slow_crop(boxes, thresholds)
        kinds.add(kind)
        found = [params[k] for k in ("left", "top", "width", "height")] if params else None
        assert found == expected
    assert kinds >= {0.0, 0.1, 0.3, 0.5, None}


def _slow_crop(boxes, thresholds):
    for choice in torch.randperm(7).tolist():
        threshold = thresholds[choice]
        if threshold is None:
            return None, None
        draws = torch.rand((4, 50), dtype=torch.float64).tolist()
        for scale, ratio, down, right in zip(*draws, strict=True):
            scale = 0.3 + 0.7 * scale
            least, most = max(0.5, scale**2), min(2.0, scale**-2)
            root = (least + (most - least) * ratio) ** 0.5
            height, width = int(70 * scale / root), int(90 * scale * root)
            height, width = min(height, 70), min(width, 90)
            top, left = int((70 - height + 1) * down), int((90 - width + 1) * right)
            crop = np.array([left, top, left + width, top + height], dtype=float)
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centres >= crop[:2]) & (centres < crop[2:])).all(axis=1)
            if inside.any() and max(_iou(box, crop) for box in boxes) >= threshold:
                return [left, top, width, height], threshold
    return None, "none fits"


def test_a_picture_without_boxes_is_not_cropped():
    sample = _sample(torch.zeros(3, 20, 20, dtype=torch.uint8), [])
    assert OverlapCrop().make_params(list(sample.values())) == {}
    with keyed_random(0):
        varied = training_transforms(AugmentConfig(), fill=(1, 2, 3), size=(64, 64))(sample)
    assert varied["boxes"].shape == (0, 4)


def test_expanding_shows_the_mean_colour():
    augment = AugmentConfig.off().model_copy(update={"expand": True})
    sample = _painted(20, 20, (0, 0, 20, 20))
    grown = []
    for seed in range(60):
        with keyed_random(seed):
            varied = training_transforms(augment, fill=(124, 116, 104), size=(64, 64))(sample)
        image = varied["image"].as_subclass(torch.Tensor)
        grown.append(image.shape[-1] / 20)
        outside = image.permute(1, 2, 0)[(image != RED[:, None, None]).any(0)]
        assert {tuple(colour.tolist()) for colour in outside} <= {(124, 116, 104)}
    assert max(grown) <= 4
    assert 0.3 < np.mean(np.array(grown) == 1) < 0.7


def test_no_variation_is_the_identity():
    assert isinstance(
        training_transforms(AugmentConfig.off(), fill=(0, 0, 0), size=(64, 64)), v2.Identity
    )
