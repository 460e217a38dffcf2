"""Batches, targets and predictions, exchanged between data, tasks and engine as frozen values.

Boxes are xyxy in pixels, float32. Class labels are 0-based int64.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

IGNORE = 255
"""Label of pixels without a class, in label maps (as in Pascal VOC and Cityscapes)."""


@dataclass(frozen=True, kw_only=True)
class ImageTarget:
    """Data of one image besides its pixels; every task adds its own fields.

    Attributes:
        image_id: Position of the image in its data set.
        path: Its file; empty for an image in memory.
        original_size: Height and width of the image on disk, in pixels.
        scale: Pixels of the image on disk per pixel of the input, horizontally and vertically. The
            upper left corners of both coincide. Undefined if the input is a part of the image.
    """

    image_id: int
    path: Path = Path()
    original_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the same target with its tensors on `device`."""
        tensors: dict[str, Any] = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        moved = {k: v.to(device, non_blocking=non_blocking) for k, v in tensors.items()}
        return replace(self, **moved)

    def __getstate__(self) -> dict[str, Any]:
        # A tensor from a worker process costs the receiver a file descriptor, five per image;
        # an array is sent by value.
        on_cpu = {k: v.numpy() for k, v in vars(self).items() if _is_on_cpu(v)}
        return {**vars(self), **on_cpu}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            object.__setattr__(self, name, tensor)


@dataclass(frozen=True, kw_only=True)
class BoxTarget(ImageTarget):
    """The objects of one image, in the pixels of the network's input.

    Attributes:
        boxes: xyxy, `(n, 4)` float32.
        labels: `(n,)` int64.
        weights: `(n,)` float32, 1 unless mixup blended two images.
        difficult: `(n,)` bool, objects that VOC evaluation ignores.
        crowd: `(n,)` bool, regions that COCO evaluation ignores.
        masks: `(n, height, width)` bool at the size of the input, for training; None without
            masks.
        outlines: For evaluation, the mask of every object at the size of the image on disk, as
            compressed run lengths of COCO; None without masks.
        stated: For evaluation, x, y, width, height and area of every object as the annotation file
            gives them, in pixels of the image on disk; None for layouts without areas.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    difficult: Tensor
    crowd: Tensor
    masks: Tensor | None = None
    outlines: tuple[Any, ...] | None = None
    stated: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassTarget(ImageTarget):
    """The class of one image.

    Attributes:
        label: Index of the class.
        mixed: Class index of the second image of a mixup, and the share of the first image; None
            without mixup.
    """

    label: int
    mixed: tuple[int, float] | None = None


@dataclass(frozen=True, kw_only=True)
class MapTarget(ImageTarget):
    """The class of every pixel of one image.

    Attributes:
        labels: `(height, width)` uint8 at the size of the input; `IGNORE` for pixels without class.
        full: `(h, w)` uint8 at the size of the image on disk, for evaluation; None in training.
    """

    labels: Tensor
    full: Tensor | None = None


Target = BoxTarget | ClassTarget | MapTarget


@dataclass(frozen=True)
class Batch:
    """Images of one size with their targets.

    Attributes:
        images: `(n, 3, height, width)` float32, normalised for the model.
        targets: One per image, all of the same kind.
    """

    images: Tensor
    targets: tuple[Any, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the same batch with its tensors on `device`."""
        targets = tuple(target.to(device, non_blocking=non_blocking) for target in self.targets)
        return Batch(self.images.to(device, non_blocking=non_blocking), targets)

    def pin_memory(self) -> "Batch":
        """Return the same batch with pinned images; a `DataLoader` calls this."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class BoxPrediction:
    """Detections in one image, in the pixels of the image on disk.

    Attributes:
        boxes: xyxy, `(n, 4)` float32, sorted by descending score.
        scores: `(n,)` float32 in 0..1.
        labels: `(n,)` int64.
        masks: `(n, h, w)` bool at the size of the image on disk; None without masks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class ClassPrediction:
    """Prediction of a classifier for one image.

    Attributes:
        scores: `(classes,)` float32 in 0..1 that sum to 1.
    """

    scores: Tensor


@dataclass(frozen=True)
class MapPrediction:
    """Prediction of a segmentation network for one image.

    Attributes:
        labels: `(h, w)` uint8, the class of every pixel of the image on disk.
    """

    labels: Tensor


def _is_on_cpu(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"
