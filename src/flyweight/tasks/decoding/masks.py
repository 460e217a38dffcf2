"""Masks of objects, converted from their boxes to the whole image."""

import math

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.5
"""Probability from which a pixel belongs to the object."""


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks of boxes as masks of the image, resampled at the centres of its pixels.

    torchvision's function for this purpose makes boxes one pixel longer, as if their last pixel
    were not inside.

    Args:
        masks: Probabilities within the boxes, `(n, side, side)`.
        boxes: xyxy in the image's pixels, `(n, 4)`.
        size: Height and width of the image.

    Returns:
        `(n, height, width)` bool.
    """
    height, width = size
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool)
    # One by one: all masks of a large image at once would need gigabytes.
    for index, (mask, box) in enumerate(zip(masks.float(), boxes.float(), strict=True)):
        rows, down = _pixels(box[1::2], height)
        columns, across = _pixels(box[0::2], width)
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        sampled = functional.grid_sample(mask[None, None], grid[None], align_corners=False)
        pasted[index, rows, columns] = sampled[0, 0] >= THRESHOLD
    return pasted


def _pixels(side: Tensor, size: int) -> tuple[slice, Tensor]:
    """Return the pixels that a side of a box touches, and their centres in -1..1 of the side."""
    low, high = side.tolist()
    first, last = max(math.floor(low), 0), min(math.ceil(high), size)
    centres = torch.arange(first, max(first, last), dtype=torch.float32) + 0.5
    return slice(first, max(first, last)), (centres - low) / max(high - low, 1e-6) * 2 - 1
