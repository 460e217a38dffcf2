"""Non-maximum suppression with fixed shapes, in networks, after networks and in exported graphs.

`torchvision.ops.nms` returns only the kept boxes, so that the sizes of all following tensors would
be known only at run time. Here suppression returns a mask and all shapes are static. So a network
that contains suppression can be traced on shapes alone and exported.
"""

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.zoo import library_parts


@torch.library.custom_op("flyweight::survivors", mutates_args=())
def survivors(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float
) -> Tensor:
    """Return which boxes of every set are kept by non-maximum suppression.

    Args:
        boxes: xyxy, `(sets, n, 4)`.
        scores: `(sets, n)`.
        iou_threshold: A box with a larger IoU with a better box is suppressed.
        score_threshold: Only boxes with a higher score are kept.

    Returns:
        `(sets, n)` bool.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for index in range(len(boxes)):
        strong = (scores[index] > score_threshold).nonzero().squeeze(1)
        best = library_parts.nms(boxes[index, strong], scores[index, strong], iou_threshold)
        kept[index, strong[best]] = True
    return kept


@survivors.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def best_of_each_class(boxes: Tensor, scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the best boxes `(n, classes, k, 4)` and scores `(n, classes, k)` of every class.

    Args:
        boxes: xyxy, one for all classes, `(n, candidates, 4)`, or one per class,
            `(n, candidates, classes, 4)`.
        scores: `(n, candidates, classes)`.
        top_k: Largest number of candidates per class.
    """
    best, index = scores.transpose(1, 2).topk(min(top_k, scores.shape[1]), dim=2)
    places = index.unsqueeze(-1).expand(*index.shape, 4)
    if boxes.dim() == 4:
        return boxes.transpose(1, 2).gather(2, places), best
    batch, classes, count = index.shape
    flat = places.reshape(batch, classes * count, 4)
    return boxes.gather(1, flat).reshape(batch, classes, count, 4), best


def keep_best(
    boxes: Tensor, scores: Tensor, survived: Tensor, keep: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the best kept boxes of all classes, by descending score, padded to `keep`.

    Args:
        boxes: xyxy `(n, classes, k, 4)`.
        scores: `(n, classes, k)`, none negative.
        survived: Which boxes suppression kept, `(n, classes, k)` bool.
        keep: Detections per image.

    Returns:
        Boxes `(n, keep, 4)`, scores `(n, keep)`, labels `(n, keep)` int64 and counts `(n,)` int64.
        Rows from `counts` on are padding: zeros, and label -1.
    """
    batch, classes, count = scores.shape
    ranked = torch.where(survived, scores, torch.full_like(scores, -1.0))
    available = min(keep, classes * count)
    best, place = ranked.reshape(batch, -1).topk(available, dim=1)
    chosen = boxes.reshape(batch, -1, 4).gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
    real = best >= 0
    padding = (0, keep - available)
    return (
        functional.pad(chosen * real.unsqueeze(-1), (0, 0, *padding)),
        functional.pad(best * real, padding),
        functional.pad(torch.where(real, place // count, -1), padding, value=-1),
        real.sum(dim=1),
    )
