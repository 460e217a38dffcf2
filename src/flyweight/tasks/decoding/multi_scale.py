"""Multi-scale testing: a detector runs on resized and mirrored copies of an image; boxes vote.

This is how the originals evaluated BlazeFace (PaddleDetection's `face_eval --multi_scale`, after
S3FD's test, Zhang et al. 2017, https://arxiv.org/abs/1708.05237, section 3.3): enlarged copies
find small faces, reduced copies find large faces. Overlapping boxes become one box, their mean
weighted by score (Gidaris and Komodakis 2015, https://arxiv.org/abs/1505.01749, section 3.3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from flyweight.tasks.metrics.voc_map import inclusive_iou

Floats = NDArray[np.float64]
Detect = Callable[[Tensor], tuple[Floats, Floats]]
"""Takes an image `(3, h, w)` uint8; returns boxes `(n, 4)` xyxy in its pixels and scores `(n,)`."""

SMALL = 100
"""Enlarged copies keep boxes whose shorter side is below it, in pixels."""
LARGE = 30
"""Reduced copies keep boxes whose longer side is above it, in pixels."""
VOTE_IOU = 0.3
KEPT = 750
LEAST_SCORE = 0.01
# The originals reduced the largest scale by these, depending on its size, to save memory.
_MARGINS = ((5.0, 0.5), (4.0, 0.4), (3.0, 0.3), (2.0, 0.2), (1.5, 0.1))


@dataclass(frozen=True)
class Pass:
    """One run of the detector on a copy of the image.

    Attributes:
        scale: Factor on the sides of the image.
        flip: Whether the copy is mirrored left to right.
        keep: The boxes that count: all, only small ones, only large ones.
    """

    scale: float
    flip: bool = False
    keep: Literal["all", "small", "large"] = "all"


def largest_scale(height: int, width: int) -> float:
    """Return the largest scale that the originals tested an image at.

    The copy has about 2.8 megapixels; the scale is truncated to two decimals and reduced by a
    margin, to at least 0.1.

    Example:
        >>> largest_scale(768, 1024)
        1.47
    """
    pixels = height * width
    fitting = min(math.sqrt(0x7FFFFFFF / 577.0 / pixels), math.sqrt(678 * 1024 * 4.0 / pixels))
    scale = _truncated(fitting) - 0.3
    margin = next((margin for least, margin in _MARGINS if scale >= least), 0.0)
    return max(0.1, scale - margin)


def passes_for(height: int, width: int) -> tuple[Pass, ...]:
    """Return the runs that the originals made on an image of that size."""
    most = largest_scale(height, width)
    shrink = min(1.0, most)
    half = 0.5 if most >= 0.75 else 0.5 * most
    passes = [Pass(shrink), Pass(shrink, flip=True), Pass(half, keep="large")]
    enlarged = [min(2.0, most) if most > 1 else (half + most) / 2]
    if most > 2:
        while enlarged[-1] * 2 < most:
            enlarged.append(enlarged[-1] * 2)
        enlarged.append(most)
    passes += [_sized(scale) for scale in enlarged]
    passes.append(Pass(0.25, keep="large"))
    passes += [_sized(scale) for scale in (0.75, 1.25, 1.5, 1.75) if scale <= most]
    return tuple(passes)


def find_in(
    detect: Detect,
    image: Tensor,
    passes: Sequence[Pass],
    *,
    drop_singletons: bool = False,
) -> tuple[Floats, Floats]:
    """Return the boxes of several runs on one image after voting, see `vote`.

    Args:
        detect: The detector.
        image: `(3, h, w)` uint8.
        passes: The runs, see `passes_for`.
        drop_singletons: See `vote`.

    Returns:
        Boxes `(n, 4)` xyxy in pixels of `image` and scores `(n,)`, by descending score.
    """
    found = [detect_once(detect, image, one) for one in passes]
    boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in found)])
    scores = np.concatenate([np.zeros(0), *(scores for _, scores in found)])
    return vote(boxes, scores, drop_singletons=drop_singletons)


def detect_once(detect: Detect, image: Tensor, one: Pass) -> tuple[Floats, Floats]:
    """Return the boxes of one run that count, in pixels of `image`, and their scores."""
    height, width = image.shape[-2:]
    size = [max(1, int(height * one.scale)), max(1, int(width * one.scale))]
    copy = image.flip(-1) if one.flip else image
    if size != [height, width]:
        copy = transform.resize(copy, size, antialias=False)
    boxes, scores = detect(copy)
    # Sides are whole pixels, so their ratio differs slightly from the scale.
    boxes = boxes * np.array([width / size[1], height / size[0]] * 2)
    if one.flip:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    if one.keep == "all":
        return boxes, scores
    kept = sides.min(axis=1) < SMALL if one.keep == "small" else sides.max(axis=1) > LARGE
    return boxes[kept], scores[kept]


def vote(boxes: Floats, scores: Floats, *, drop_singletons: bool = False) -> tuple[Floats, Floats]:
    """Return one box for every group of overlapping boxes, with the best score of the group.

    The best remaining box forms a group with all boxes that overlap it by an IoU of at least 0.3
    (inclusive pixel ranges); the group is replaced by its mean, weighted by score. The first 750
    groups that score at least 0.01 are kept.

    Args:
        boxes: `(n, 4)` xyxy.
        scores: `(n,)`.
        drop_singletons: Remove boxes that overlap no other, unless nothing else is left, as the
            originals did: a face that only one of several runs found was removed.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    left = np.ones(len(boxes), dtype=np.bool_)
    found: list[tuple[Floats, float]] = []
    while left.any():
        rows = np.flatnonzero(left)
        close = inclusive_iou(boxes[rows[:1]], boxes[rows])[0] >= VOTE_IOU
        close[0] = True
        group = rows[close]
        left[group] = False
        if drop_singletons and len(group) == 1 and left.any():
            continue
        found.append((_mean_box(boxes[group], scores[group]), float(scores[group[0]])))
        if len(found) == KEPT:
            break
    strong = [(box, score) for box, score in found if score >= LEAST_SCORE]
    return (
        np.array([box for box, _ in strong]).reshape(-1, 4),
        np.array([score for _, score in strong]),
    )


def as_prediction(boxes: Floats, scores: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and labels as the parts of a `BoxPrediction` of one class."""
    found = torch.from_numpy(boxes).float(), torch.from_numpy(scores).float()
    return *found, torch.zeros(len(scores), dtype=torch.int64)


def _mean_box(boxes: Floats, scores: Floats) -> Floats:
    total = scores.sum()
    # Scores of zero give no weights; any of the boxes can be returned.
    mean: Floats = (boxes * scores[:, None]).sum(axis=0) / total if total > 0 else boxes[0]
    return mean


def _sized(scale: float) -> Pass:
    return Pass(scale, keep="small" if scale > 1 else "large")


def _truncated(value: float) -> float:
    """Return a number truncated after its second printed decimal, as the originals did.

    Not by arithmetic, because 0.29 * 100 is below 29 in floating point.
    """
    whole, _, decimals = repr(value).partition(".")
    return float(f"{whole}.{decimals[:2]}")
