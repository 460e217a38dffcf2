"""Testing a detector on one image at several sizes and mirrored, its boxes put to the vote.

This is how the originals evaluated BlazeFace (PaddleDetection's `face_eval --multi_scale`, after
S3FD's test, Zhang et al. 2017, https://arxiv.org/abs/1708.05237, section 3.3): large copies of an
image speak for small faces, small copies for large ones. Overlapping boxes become one, the mean
weighed by score (Gidaris and Komodakis 2015, https://arxiv.org/abs/1505.01749, section 3.3).
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
"""From an image `(3, h, w)` uint8 to boxes `(n, 4)` xyxy in its pixels and scores `(n,)`."""

SMALL = 100
"""Boxes whose shorter side is below it stay from enlarged copies."""
LARGE = 30
"""Boxes whose longer side is above it stay from reduced copies."""
VOTE_IOU = 0.3
KEPT = 750
LEAST_SCORE = 0.01
# What the originals took off the largest scale, by how large it is, lest memory run out.
_MARGINS = ((5.0, 0.5), (4.0, 0.4), (3.0, 0.3), (2.0, 0.2), (1.5, 0.1))


@dataclass(frozen=True)
class Pass:
    """One look at the image.

    Attributes:
        scale: Its sides are multiplied by it.
        flip: It is mirrored left to right.
        keep: Which boxes count: all, only small ones, only large ones.
    """

    scale: float
    flip: bool = False
    keep: Literal["all", "small", "large"] = "all"


def largest_scale(height: int, width: int) -> float:
    """Return the largest scale that the originals tested an image at.

    About as many pixels as 2.8 megapixels hold, cut off after two decimals, less a margin; at
    least 0.1.

    Example:
        >>> largest_scale(768, 1024)
        1.47
    """
    pixels = height * width
    fitting = min(math.sqrt(0x7FFFFFFF / 577.0 / pixels), math.sqrt(678 * 1024 * 4.0 / pixels))
    scale = _cut_off(fitting) - 0.3
    margin = next((margin for least, margin in _MARGINS if scale >= least), 0.0)
    return max(0.1, scale - margin)


def passes_for(height: int, width: int) -> tuple[Pass, ...]:
    """Return the looks at an image of that size that the originals took."""
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
    """Return what several looks at an image agree on, see `vote`.

    Args:
        detect: The detector.
        image: `(3, h, w)` uint8.
        passes: The looks, see `passes_for`.
        drop_singletons: See `vote`.

    Returns:
        Boxes `(n, 4)` xyxy in pixels of `image` and scores `(n,)`, by falling score.
    """
    seen = [look(detect, image, one) for one in passes]
    boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in seen)])
    scores = np.concatenate([np.zeros(0), *(scores for _, scores in seen)])
    return vote(boxes, scores, drop_singletons=drop_singletons)


def look(detect: Detect, image: Tensor, one: Pass) -> tuple[Floats, Floats]:
    """Return the boxes of one look that count, in pixels of `image`, and their scores."""
    height, width = image.shape[-2:]
    size = [max(1, int(height * one.scale)), max(1, int(width * one.scale))]
    copy = image.flip(-1) if one.flip else image
    if size != [height, width]:
        copy = transform.resize(copy, size, antialias=False)
    boxes, scores = detect(copy)
    # Sides are whole pixels, so that their ratio is not quite the scale.
    boxes = boxes * np.array([width / size[1], height / size[0]] * 2)
    if one.flip:
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    if one.keep == "all":
        return boxes, scores
    kept = sides.min(axis=1) < SMALL if one.keep == "small" else sides.max(axis=1) > LARGE
    return boxes[kept], scores[kept]


def vote(boxes: Floats, scores: Floats, *, drop_singletons: bool = False) -> tuple[Floats, Floats]:
    """Return one box for every group of boxes that overlap, with the best score of the group.

    The best box that is left gathers all that overlap it by an IoU of 0.3 or more (inclusive pixel
    ranges); the group becomes its mean, weighed by score. The first 750 groups that score at least
    0.01 stay.

    Args:
        boxes: `(n, 4)` xyxy.
        scores: `(n,)`.
        drop_singletons: Forget boxes that stand alone, except where nothing else is left, as the
            originals did: with several looks a face that only one of them found was thrown away.
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
    # Scores of zero weigh nothing; any of the boxes will do.
    mean: Floats = (boxes * scores[:, None]).sum(axis=0) / total if total > 0 else boxes[0]
    return mean


def _sized(scale: float) -> Pass:
    return Pass(scale, keep="small" if scale > 1 else "large")


def _cut_off(value: float) -> float:
    """Return a number without what follows its second printed decimal, as the originals did.

    Not by arithmetic, for which 0.29 * 100 is below 29.
    """
    whole, _, decimals = repr(value).partition(".")
    return float(f"{whole}.{decimals[:2]}")
