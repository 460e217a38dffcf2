"""What flows between data, tasks and the engine: plain frozen values.

Boxes are xyxy in pixels, float32; class labels are 0-based int64.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _is_on_cpu(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


@dataclass(frozen=True)
class BoxTarget:
    """The objects of one picture, in the pixels of the network's input.

    Attributes:
        boxes: xyxy, `(n, 4)` float32.
        labels: `(n,)` int64.
        weights: `(n,)` float32, 1 except where mixup blended two pictures.
        difficult: `(n,)` bool, objects that VOC evaluation ignores.
        crowd: `(n,)` bool, regions that COCO evaluation ignores.
        image_id: Position of the picture in its data set.
        path: Its file; a made-up picture has an empty path.
        original_size: Height and width of the picture on disk, in pixels.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    difficult: Tensor
    crowd: Tensor
    image_id: int
    path: Path
    original_size: tuple[int, int]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "BoxTarget":
        """Return the same target with its tensors on `device`."""
        names = ("boxes", "labels", "weights", "difficult", "crowd")
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names}
        return replace(self, **moved)

    def __getstate__(self) -> dict[str, Any]:
        # A tensor from a worker process costs the receiver a file descriptor, five per picture;
        # an array travels by value.
        on_cpu = {k: v.numpy() for k, v in vars(self).items() if _is_on_cpu(v)}
        return {**vars(self), **on_cpu}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            object.__setattr__(self, name, tensor)


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with their targets.

    Attributes:
        images: `(n, 3, height, width)` float32, normalised as the model wants them.
        targets: One per picture.
    """

    images: Tensor
    targets: tuple[BoxTarget, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the same batch with its tensors on `device`."""
        targets = tuple(target.to(device, non_blocking=non_blocking) for target in self.targets)
        return Batch(self.images.to(device, non_blocking=non_blocking), targets)

    def pin_memory(self) -> "Batch":
        """Return the same batch with pinned pictures, as a `DataLoader` asks for."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class BoxPrediction:
    """What a detector says of one picture, in the pixels of the picture on disk.

    Attributes:
        boxes: xyxy, `(n, 4)` float32, sorted by falling score.
        scores: `(n,)` float32 in 0..1.
        labels: `(n,)` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
