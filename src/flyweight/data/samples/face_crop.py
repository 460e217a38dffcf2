"""Random crops of images of faces for training, as for BlazeFace in the original.

With probability 0.5, the crop is made by data-anchor sampling (PyramidBox, Tang et al. 2018,
section 3.3, https://arxiv.org/abs/1803.07737): a face is chosen, and the image is scaled so that
the face is as large as the anchor of its size or a smaller one. So large faces become small ones,
which are rare in the data. Otherwise the crop is one of five square crops that contain a whole face
(after S3FD, Zhang et al. 2017, https://arxiv.org/abs/1708.05237).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transform

Floats = npt.NDArray[np.float64]

ANCHOR_SCALES = (16.0, 32.0, 64.0, 128.0)
_ANCHOR_TRIALS, _ANCHOR_COVERAGE = 10, 0.2
_SQUARE_SCALES = ((1.0, 1.0), *((0.3, 1.0),) * 4)
_SQUARE_TRIALS = 50
_LEAST_SIDE = 8.0


class FaceCrop(v2.Transform):  # type: ignore[misc]
    """Data-anchor sampling or a square crop, each with probability 0.5.

    A crop that exceeds the image is padded with black and returned at the input size of the
    network; other crops have their own size. Boxes of faces whose centre is outside the crop, or
    which would be smaller than 8x8 pixels of the input, are set to zero, so that
    `SanitizeBoundingBoxes` removes them. A crop without faces is not made.

    Args:
        size: Height and width of the network input.
        anchor_scales: Sides of the anchors in pixels, ascending. As in the originals the last one
            is an upper limit and never chosen.
    """

    def __init__(
        self, size: tuple[int, int], anchor_scales: tuple[float, ...] = ANCHOR_SCALES
    ) -> None:
        super().__init__()
        self.size = size
        self.anchor_scales = np.array(anchor_scales, dtype=np.float64)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Choose a random crop, `left, top, side`; no entries mean no crop."""
        framed = next(item for item in flat_inputs if isinstance(item, tv_tensors.BoundingBoxes))
        faces = framed.as_subclass(Tensor).numpy().astype(np.float64)
        if not len(faces):
            return {}
        height, width = framed.canvas_size
        anchored = _uniform(0, 1) > 0.5
        crops = (
            self._anchor_crops(faces, height, width)
            if anchored
            else self._square_crops(faces, height, width)
        )
        for choice in torch.randperm(len(crops)).tolist():
            kept = self._kept(faces, crops[choice])
            if kept.any():
                left, top, side = crops[choice]
                return {"left": left, "top": top, "side": side, "kept": torch.from_numpy(kept)}
        return {}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop images and boxes."""
        if not params:
            return inpt
        left, top, side = (params[name] for name in ("left", "top", "side"))
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.Image(self._cut(inpt.as_subclass(Tensor), left, top, side))
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            inside = _inside(inpt.canvas_size, left, top, side)
            height, width = (side, side) if inside else self.size
            factors = torch.tensor([width / side, height / side] * 2)
            boxes = (inpt.as_subclass(Tensor) - torch.tensor([left, top] * 2)) * factors
            limit = torch.tensor([width, height] * 2, dtype=boxes.dtype)
            boxes = boxes.clamp(min=torch.zeros(4), max=limit)
            boxes[~params["kept"]] = 0
            return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        return inpt

    def _anchor_crops(self, faces: Floats, height: int, width: int) -> list[tuple[int, int, int]]:
        for _ in range(_ANCHOR_TRIALS):
            face = faces[int(torch.randint(len(faces), ()))]
            side = max(1, int(self._anchor_side(face)))
            spans = ((face[0], face[2], width), (face[1], face[3], height))
            left, top = (
                _offset(low, high, whole, side, max(height, width)) for low, high, whole in spans
            )
            crop = (left, top, side)
            if (_coverages(faces, crop) >= _ANCHOR_COVERAGE).any():
                return [crop]
        return []

    def _anchor_side(self, face: Floats) -> float:
        """Return the side of a crop in which the face is as wide as a randomly chosen anchor."""
        wide, high = face[2] - face[0], face[3] - face[1]
        geometric = math.sqrt(wide * high)
        scales = self.anchor_scales
        nearest = min(int((scales < geometric).sum()), max(0, len(scales) - 2))
        chosen = int(torch.randint(nearest + 1, ()))
        most = 2 * scales[chosen]
        if chosen == nearest:
            most = min(most, 2 * geometric)
        return float(wide * self.size[1] / _uniform(scales[chosen] / 2, most))

    def _square_crops(self, faces: Floats, height: int, width: int) -> list[tuple[int, int, int]]:
        crops = []
        for low, high in _SQUARE_SCALES:
            for _ in range(_SQUARE_TRIALS):
                side = max(1, int(_uniform(low, high) * min(height, width)))
                left, top = (int(_uniform(0, whole - side)) for whole in (width, height))
                crop = (left, top, side)
                if (_coverages(faces, crop) >= 1).any():
                    crops.append(crop)
                    break
        return crops

    def _kept(self, faces: Floats, crop: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
        left, top, side = crop
        corner = np.array([left, top])
        centres = (faces[:, :2] + faces[:, 2:]) / 2
        inside = ((centres >= corner) & (centres <= corner + side)).all(axis=1)
        low, high = np.maximum(faces[:, :2], corner), np.minimum(faces[:, 2:], corner + side)
        areas = np.clip(high - low, 0, None).prod(axis=1) / side**2
        large: npt.NDArray[np.bool_] = areas * self.size[0] * self.size[1] >= _LEAST_SIDE**2
        return inside & large

    def _cut(self, image: Tensor, left: int, top: int, side: int) -> Tensor:
        height, width = image.shape[-2:]
        if _inside((height, width), left, top, side):
            return image[:, top : top + side, left : left + side]
        # A crop may be a hundred times as large as the image, so only the common part is resized.
        rows = max(0, top), min(height, top + side)
        columns = max(0, left), min(width, left + side)
        part = image[:, rows[0] : rows[1], columns[0] : columns[1]]
        down, across = self.size[0] / side, self.size[1] / side
        first_row, last_row = (round((row - top) * down) for row in rows)
        first_column, last_column = (round((column - left) * across) for column in columns)
        canvas = image.new_zeros((3, *self.size))
        shape = [last_row - first_row, last_column - first_column]
        if min(shape) > 0:
            resized = transform.resize(part, shape, antialias=True)
            canvas[:, first_row:last_row, first_column:last_column] = resized
        return canvas


def _inside(size: tuple[int, int], left: int, top: int, side: int) -> bool:
    height, width = size
    return left >= 0 and top >= 0 and left + side <= width and top + side <= height


def _offset(low: float, high: float, whole: int, side: int, longest: int) -> int:
    """Return the start of a crop along one axis, so that it contains the face or is inside it."""
    if side < longest:
        return math.floor(_uniform(high - side, low))
    return math.floor(_uniform(whole - side, 0))


def _coverages(faces: Floats, crop: tuple[int, int, int]) -> Floats:
    """Return the share of each face that is inside the crop."""
    left, top, side = crop
    low = np.maximum(faces[:, :2], [left, top])
    high = np.minimum(faces[:, 2:], [left + side, top + side])
    shares: Floats = np.clip(high - low, 0, None).prod(axis=1)
    areas = (faces[:, 2:] - faces[:, :2]).prod(axis=1)
    shares /= np.maximum(areas, 1e-9)
    return shares


def _uniform(first: float, last: float) -> float:
    return first + (last - first) * float(torch.rand((), dtype=torch.float64))
