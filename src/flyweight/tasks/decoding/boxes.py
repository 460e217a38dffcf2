"""Boxes of detectors after decoding: clipping to the image, suppression and lists."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flyweight.config.tasks import Suppression
from flyweight.data.batch import BoxPrediction
from flyweight.tasks.task import Listed
from flyweight.zoo import library_parts


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return xyxy boxes `(..., 4)` clipped to an image of `size`, its height and width."""
    height, width = size
    xs = boxes[..., 0::2].clamp(0, width)
    ys = boxes[..., 1::2].clamp(0, height)
    return torch.stack((xs[..., 0], ys[..., 0], xs[..., 1], ys[..., 1]), dim=-1)


def suppress(boxes: Tensor, scores: Tensor, settings: Suppression) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of one image that suppression keeps, best first.

    Args:
        boxes: xyxy `(anchors, 4)`, one box per anchor for all classes, or one per class,
            `(anchors, classes, 4)`.
        scores: `(anchors, classes)`.
        settings: Thresholds of score and overlap, and how many to keep.

    Returns:
        Boxes `(kept, 4)`, scores `(kept,)`, labels `(kept,)` int64.
    """
    rows, labels = (scores >= settings.score_threshold).nonzero(as_tuple=True)
    values = scores[rows, labels]
    best = _best_of_each_class(values, labels, settings.top_k)
    rows, labels, values = rows[best], labels[best], values[best]
    chosen = boxes[rows] if boxes.dim() == 2 else boxes[rows, labels]
    kept = library_parts.batched_nms(
        _grown(chosen, settings), values, labels, settings.iou_threshold
    )
    kept = kept[: settings.keep]
    return chosen[kept], values[kept], labels[kept]


def listed_boxes(
    prediction: BoxPrediction, labels: Sequence[str], *, threshold: float
) -> list[Listed]:
    """Return label, score and box of every object that scores at least `threshold`."""
    rows = zip(
        prediction.boxes.tolist(),
        prediction.scores.tolist(),
        prediction.labels.tolist(),
        strict=True,
    )
    return [
        {"label": labels[label], "score": round(score, 4), "box": [round(v, 1) for v in box]}
        for box, score, label in rows
        if score >= threshold
    ]


def _best_of_each_class(values: Tensor, labels: Tensor, top_k: int) -> Tensor:
    """Return positions, by descending value, of the `top_k` highest of each class."""
    order = values.argsort(descending=True, stable=True)
    if len(order) <= top_k:
        return order
    by_class = labels[order].argsort(stable=True)
    counts = labels.bincount()
    starts = (counts.cumsum(0) - counts)[labels[order][by_class]]
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(order), device=order.device) - starts
    return order[ranks < top_k]


def _grown(boxes: Tensor, settings: Suppression) -> Tensor:
    """Return boxes as continuous extents; inclusive pixel ranges grow by their last pixel."""
    return boxes + boxes.new_tensor((0, 0, 1, 1)) if settings.plus_one else boxes
