"""Encoding of boxes relative to reference boxes, as in R-CNN.

Coordinates are continuous: pixel i covers i to i + 1. The originals used the first and the last
pixel of a box, which are other numbers for the same boxes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_GROWTH = math.log(1000 / 16)
"""Largest decoded logarithm of the growth of a side. It keeps all predictions finite."""


def encode(boxes: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas from `references` to `boxes` (arXiv 1311.2524, appendix C).

    Args:
        boxes: xyxy, `(..., 4)`.
        references: xyxy, `(..., 4)`, of positive width and height.
        weights: Factors of the four results, which equalise their spreads.

    Returns:
        `(..., 4)`: shift of the centre in widths and heights, logarithm of the growth of both.
    """
    shift = (_centres(boxes) - _centres(references)) / _sizes(references)
    growth = torch.log(_sizes(boxes) / _sizes(references))
    return torch.cat((shift, growth), dim=-1) * boxes.new_tensor(tuple(weights))


def decode(deltas: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the boxes of `deltas`; the inverse of `encode`.

    Args:
        deltas: `(..., 4)`.
        references: xyxy, broadcast against `deltas`.
        weights: As given to `encode`.

    Returns:
        xyxy, not clipped.
    """
    plain = deltas / deltas.new_tensor(tuple(weights))
    centres = _centres(references) + plain[..., :2] * _sizes(references)
    growth = plain[..., 2:].clamp(max=LARGEST_GROWTH).exp()
    halves = growth * _sizes(references) / 2
    return torch.cat((centres - halves, centres + halves), dim=-1)


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return xyxy boxes `(..., 4)` moved into an image of `size`, its height and width."""
    height, width = size
    xs, ys = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((xs, ys), dim=-1).flatten(-2)


def precise(values: Tensor) -> Tensor:
    """Return `values` in single precision, which coordinates need; double precision is kept."""
    return values if values.dtype == torch.float64 else values.float()


def areas(boxes: Tensor) -> Tensor:
    """Return the areas of xyxy boxes `(..., 4)`."""
    return _sizes(boxes).prod(dim=-1)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _sizes(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]
