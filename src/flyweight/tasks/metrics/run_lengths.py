"""Masks of objects as run lengths, in the compressed format of COCO."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as coco
from numpy.typing import NDArray
from torch import Tensor


def run_lengths(masks: Tensor) -> tuple[Any, ...]:
    """Return masks `(n, height, width)` as compressed run lengths, one per mask."""
    # COCO counts down the columns.
    columns: NDArray[np.uint8] = np.asfortranarray(
        masks.permute(1, 2, 0).to(torch.uint8).numpy(force=True)
    )
    return tuple(coco.encode(columns)) if len(masks) else ()


def areas_of(masks: Sequence[Any]) -> list[float]:
    """Return the number of pixels of every mask."""
    return [float(coco.area(mask)) for mask in masks]
