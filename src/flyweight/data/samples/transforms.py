"""Augmentations of detection: the steps of the original YOLOv3 readers, in their order.

A sample is a dict of a `tv_tensors.Image`, its `tv_tensors.BoundingBoxes`, and tensors with one row
per box (`ROWS`). Random numbers come from the global CPU generator of torch, which the caller
seeds.

Three errors of the originals are not repeated: their hue was rotated by 18 half-turns instead of 18
degrees, their brightness changed by at most 1.5 of 255, and values outside 0..255 overflowed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from flyweight.config.data import AugmentConfig
from flyweight.data.samples.face_crop import FaceCrop

Sample = dict[str, Any]
_Array = npt.NDArray[np.float64]
ROWS = ("labels", "weights", "difficult", "crowd")

# The originals chose one of five interpolations of OpenCV per batch: nearest, linear, cubic, area
# and Lanczos. These are the nearest equivalents; the last two smooth before shrinking, as area
# does.
INTERPOLATIONS: tuple[tuple[InterpolationMode, bool], ...] = (
    (InterpolationMode.NEAREST, False),
    (InterpolationMode.BILINEAR, False),
    (InterpolationMode.BICUBIC, False),
    (InterpolationMode.BILINEAR, True),
    (InterpolationMode.BICUBIC, True),
)

_GREY = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ: Tensor = torch.linalg.inv(_TO_YIQ)
_PROBABILITY = 0.5


def make_sample(image: Tensor, boxes: Tensor, **rows: Tensor) -> Sample:
    """Return a sample of a `(3, h, w)` uint8 image, `(n, 4)` boxes, and `ROWS` of length n."""
    height, width = image.shape[-2:]
    framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
    return {"image": tv_tensors.Image(image), "boxes": framed, **rows}


def mixup(first: Sample, second: Sample, share: float) -> Sample:
    """Blend two samples on a black canvas that contains both, with equal upper left corners.

    The boxes of both are kept, and the loss weighs them by the `share` of their image
    (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).
    """
    if share >= 1:
        return first
    if share <= 0:
        return second
    height = max(first["image"].shape[-2], second["image"].shape[-2])
    width = max(first["image"].shape[-1], second["image"].shape[-1])
    blend = _on_canvas(second["image"], height, width)
    blend.lerp_(_on_canvas(first["image"], height, width), share).round_()
    rows = {name: torch.cat([first[name], second[name]]) for name in ROWS}
    rows["weights"] = torch.cat([first["weights"] * share, second["weights"] * (1 - share)])
    boxes = torch.cat([first["boxes"].as_subclass(Tensor), second["boxes"].as_subclass(Tensor)])
    return make_sample(blend.to(torch.uint8), boxes, **rows)


def draw_mixup_share(alpha: float) -> float:
    """Draw the share of the first image from beta(alpha, alpha)."""
    # A beta variable is made of two gamma variables; torch.distributions.Beta takes 20 times as
    # long.
    first, second = torch._standard_gamma(torch.tensor([alpha, alpha], dtype=torch.float64))
    return float(first / (first + second))


def training_transforms(
    augment: AugmentConfig, *, fill: tuple[int, int, int], size: tuple[int, int]
) -> Callable[[Sample], Sample]:
    """Return the augmentations after mixup and before resizing.

    Args:
        augment: The selected augmentations.
        fill: Colour of the canvas around the image in `expand`, 0..255.
        size: Height and width that the image is resized to afterwards.
    """
    steps: list[v2.Transform] = []
    if augment.color_distort:
        steps.append(ColorDistort(augment))
    if augment.expand:
        ratios = (1.0, augment.expand_ratio)
        canvas = {tv_tensors.Image: list(fill), "others": 0}
        steps.append(v2.RandomZoomOut(fill=canvas, side_range=ratios, p=_PROBABILITY))
    if augment.face_crop:
        steps.append(FaceCrop(size, augment.anchor_scales))
    elif augment.crop:
        steps.append(OverlapCrop(allow_none=augment.allow_no_crop))
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip(p=_PROBABILITY))
    composed: Callable[[Sample], Sample] = v2.Compose(steps) if steps else v2.Identity()
    return composed


def resize_sample(
    sample: Sample, size: tuple[int, int], interpolation: InterpolationMode, *, smooth: bool
) -> Sample:
    """Resize image and boxes to `size`, and remove boxes smaller than one pixel."""
    resize = v2.Resize(list(size), interpolation=interpolation, antialias=smooth)
    resized: Sample = _SANITIZE(resize(sample))
    return resized


class ColorDistort(v2.Transform):  # type: ignore[misc]
    """Hue, saturation, contrast and brightness, each with probability 0.5, in random order.

    All four are affine functions of the colour. They are combined into one matrix and one offset,
    and values are clipped once at the end instead of after each step.

    Args:
        augment: Ranges of the four, and whether the order is one of the two orders of SSD.
    """

    def __init__(self, augment: AugmentConfig | None = None) -> None:
        super().__init__()
        self.ranges = AugmentConfig() if augment is None else augment

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Choose a random matrix `(3, 3)` and offset `(3,)` for the image among the inputs."""
        image = next(item for item in flat_inputs if isinstance(item, tv_tensors.Image))
        matrix, offset = torch.eye(3), torch.zeros(3)
        mean: Tensor | None = None
        limits = (None, self.ranges.saturation, self.ranges.contrast, self.ranges.brightness)
        for step in self._order():
            chance, amount = torch.rand(2).tolist()
            if chance >= _PROBABILITY:
                continue
            low, high = limits[step] or (0.0, 0.0)
            factor = low + (high - low) * amount
            if step == 0:
                turn = _hue_matrix(self.ranges.hue_degrees * (2 * amount - 1))
                matrix, offset = turn @ matrix, turn @ offset
            elif step == 1:
                mix = factor * torch.eye(3) + (1 - factor) * _GREY.expand(3, 3)
                matrix, offset = mix @ matrix, mix @ offset
            elif step == 2:
                mean = _channel_means(image) if mean is None else mean
                grey = _GREY @ (matrix @ mean + offset)
                matrix, offset = factor * matrix, factor * offset + (1 - factor) * grey
            else:
                matrix, offset = factor * matrix, factor * offset
        return {"matrix": matrix, "offset": offset}

    def _order(self) -> list[int]:
        """Return the steps by number: 0 hue, 1 saturation, 2 contrast, 3 brightness."""
        if not self.ranges.distort_in_order:
            return torch.randperm(4).tolist()
        return [3, 2, 1, 0] if torch.rand(()) < _PROBABILITY else [3, 1, 0, 2]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the matrix and offset to images; return other inputs unchanged."""
        if not isinstance(inpt, tv_tensors.Image) or torch.equal(params["matrix"], torch.eye(3)):
            return inpt
        pixels = _floats(inpt.as_subclass(Tensor))
        mapped = (params["matrix"] @ pixels.flatten(1)).reshape(pixels.shape)
        # Adding one half before truncation rounds.
        mapped.add_(params["offset"][:, None, None] + 0.5).clamp_(0, 255.5)
        return tv_tensors.wrap(mapped.to(torch.uint8), like=inpt)


class OverlapCrop(v2.Transform):  # type: ignore[misc]
    """Random crop with a minimum IoU with an object, as in the originals.

    The thresholds 0, 0.1, 0.3, 0.5, 0.7, 0.9 and "no crop" are tried in random order. Each has 50
    attempts with scale 0.3 to 1 and aspect ratio 0.5 to 2. A crop is accepted if its IoU with a box
    reaches the threshold and it contains the centre of a box. Boxes whose centre is outside are set
    to zero, so that `SanitizeBoundingBoxes` removes them (Liu et al. 2015, section 2.2,
    https://arxiv.org/abs/1512.02325). `v2.RandomIoUCrop` has other distributions of scale and
    aspect ratio and tries one candidate at a time.

    Args:
        allow_none: Whether "no crop" is among the choices.
    """

    _thresholds = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)
    _attempts = 50
    _scales = (0.3, 1.0)
    _ratios = (0.5, 2.0)

    def __init__(self, *, allow_none: bool = True) -> None:
        super().__init__()
        self._choices = self._thresholds if allow_none else self._thresholds[:-1]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Choose a random crop; no entries mean no crop."""
        framed = next(item for item in flat_inputs if isinstance(item, tv_tensors.BoundingBoxes))
        boxes = framed.numpy().astype(np.float64)
        if not len(boxes):
            return {}
        height, width = framed.canvas_size
        for choice in torch.randperm(len(self._choices)).tolist():
            threshold = self._choices[choice]
            if threshold is None:
                return {}
            crops = self._candidates(height, width)
            inside = _centres_inside(boxes, crops)
            fitting = inside.any(axis=1) & (_overlaps(boxes, crops).max(axis=1) >= threshold)
            if fitting.any():
                first = int(fitting.argmax())
                left, top, right, bottom = (int(side) for side in crops[first])
                kept = torch.from_numpy(inside[first])
                box = {"top": top, "left": left, "height": bottom - top, "width": right - left}
                return {**box, "kept": kept}
        return {}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop images and boxes."""
        if not params or not isinstance(inpt, tv_tensors.TVTensor):
            return inpt
        sides = (params[name] for name in ("top", "left", "height", "width"))
        cropped = transform.crop(inpt, *sides)
        if isinstance(cropped, tv_tensors.BoundingBoxes):
            cropped[~params["kept"]] = 0
        return cropped

    def _candidates(self, height: int, width: int) -> _Array:
        draws = torch.rand((4, self._attempts), dtype=torch.float64).numpy()
        low, high = self._scales
        scale = low + (high - low) * draws[0]
        least = np.maximum(self._ratios[0], scale**2)
        most = np.minimum(self._ratios[1], scale**-2)
        root = np.sqrt(least + (most - least) * draws[1])
        # The relative sides are at most one, except for rounding errors.
        heights = np.clip((height * scale / root).astype(np.int64), 1, height)
        widths = np.clip((width * scale * root).astype(np.int64), 1, width)
        top = np.floor((height - heights + 1) * draws[2])
        left = np.floor((width - widths + 1) * draws[3])
        return np.stack([left, top, left + widths, top + heights], axis=1)


def _overlaps(boxes: _Array, crops: _Array) -> _Array:
    """Return the IoU of every crop with every box, `(crops, boxes)`."""
    low = np.maximum(crops[:, None, :2], boxes[None, :, :2])
    high = np.minimum(crops[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    whole = (crops[:, 2:] - crops[:, :2]).prod(axis=1)
    union: _Array = common / np.maximum(areas[None, :] + whole[:, None] - common, 1e-9)
    return union


def _centres_inside(boxes: _Array, crops: _Array) -> npt.NDArray[np.bool_]:
    """Return whether each crop contains the centre of each box, `(crops, boxes)`."""
    centres = (boxes[None, :, :2] + boxes[None, :, 2:]) / 2
    inside = (crops[:, None, :2] <= centres) & (centres < crops[:, None, 2:])
    return np.logical_and(inside[..., 0], inside[..., 1])


def _channel_means(image: Tensor) -> Tensor:
    """Return the mean of each channel of a `(3, h, w)` uint8 image, `(3,)` float32."""
    plain: Tensor = image.as_subclass(Tensor)
    return _floats(plain).mean(dim=(1, 2))


def _on_canvas(image: Tensor, height: int, width: int) -> Tensor:
    """Return the image as float32 in the corner of a black canvas."""
    plain: Tensor = image.as_subclass(Tensor)
    if plain.shape[-2:] == (height, width):
        return _floats(plain)
    canvas = torch.zeros((3, height, width))
    canvas[:, : plain.shape[-2], : plain.shape[-1]] = plain
    return canvas


def _floats(image: Tensor) -> Tensor:
    """Return the image as float32, with contiguous channels, which is much faster."""
    return image.to(torch.float32, memory_format=torch.contiguous_format)


def _hue_matrix(degrees: float) -> Tensor:
    """Return the matrix that rotates RGB colours about the grey axis, in YIQ."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    return _FROM_YIQ @ turn @ _TO_YIQ


def _rows_of(sample: Sample) -> tuple[Tensor, ...]:
    return tuple(sample[name] for name in ROWS)


_SANITIZE = v2.SanitizeBoundingBoxes(min_size=1, min_area=1, labels_getter=_rows_of)
