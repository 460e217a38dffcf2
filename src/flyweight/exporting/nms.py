"""Non-maximum suppression that can live inside an exported graph.

`torchvision.ops.nms` returns as many boxes as survive, which would give every tensor after it a
size known only at run time. Here suppression answers with a mask, so that all shapes stay static:
eager PyTorch computes it with torchvision, ONNX with one NonMaxSuppression node.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Decode = Callable[[Any], tuple[Tensor, Tensor]]

_MAX_SURVIVORS = 2**31 - 1


@torch.library.custom_op("flyweight::survivors", mutates_args=())
def survivors(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float
) -> Tensor:
    """Return which boxes of every set survive non-maximum suppression.

    Args:
        boxes: xyxy, `(sets, n, 4)`.
        scores: `(sets, n)`.
        iou_threshold: A box that overlaps a better one by more is suppressed.
        score_threshold: A box that scores no more than this does not survive.

    Returns:
        `(sets, n)` bool.
    """
    from torchvision.ops import nms

    kept = torch.zeros_like(scores, dtype=torch.bool)
    for index in range(len(boxes)):
        strong = (scores[index] > score_threshold).nonzero().squeeze(1)
        best = nms(boxes[index, strong], scores[index, strong], iou_threshold)
        kept[index, strong[best]] = True
    return kept


@survivors.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """Return how the exporter writes this module's operator in ONNX."""
    from onnx import TensorProto
    from onnxscript import opset20

    op: Any = opset20  # its stubs know tensors only inside scripts

    def translate(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        picked = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[_MAX_SURVIVORS]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        # Rows of (set, class, box), with a single class.
        places = op.Gather(picked, op.Constant(value_ints=[0, 2]), axis=1)
        count = op.Shape(op.Gather(places, op.Constant(value_int=0), axis=1))
        ones = op.Expand(op.Constant(value_float=1.0), count)
        mask = op.ScatterND(op.ConstantOfShape(op.Shape(scores)), places, ones)
        return op.Cast(mask, to=TensorProto.BOOL)

    return {torch.ops.flyweight.survivors.default: translate}


class Detections(nn.Module):
    """Decoding and class-wise non-maximum suppression, appended after a detector.

    The order is the originals' `multiclass_nms`: per class, boxes that score more than
    `score_threshold`, of these the `top_k` best, suppression, then the `keep` best of all classes.

    Args:
        decode: Turns raw outputs into boxes (xyxy, `(n, anchors, 4)`) and scores
            (`(n, anchors, classes)`).
        score_threshold: Score that a detection must exceed, from 0.
        iou_threshold: Greatest overlap of two boxes of one class.
        top_k: Candidates per class.
        keep: Detections per picture.
        pixel_offset: Added to widths and heights in the overlap; 1 reproduces the originals, who
            counted the pixels from first to last.
    """

    output_names = ("boxes", "scores", "labels", "counts")

    def __init__(
        self,
        decode: Decode,
        *,
        score_threshold: float = 0.01,
        iou_threshold: float = 0.45,
        top_k: int = 1000,
        keep: int = 100,
        pixel_offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.decode = decode
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.top_k = top_k
        self.keep = keep
        self.pixel_offset = pixel_offset

    def forward(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the detections of every picture, by falling score, padded to `keep`.

        Args:
            outputs: Whatever the network returns.

        Returns:
            boxes `(n, keep, 4)` xyxy float32, scores `(n, keep)`, labels `(n, keep)` int64 and
            counts `(n,)` int64. Rows from `counts` on are padding: zeros, and label -1.
        """
        boxes, scores = self.decode(outputs)
        candidates, best = self._candidates(boxes, scores)
        kept = self._suppress(candidates, best)
        return self._gather(candidates, torch.where(kept, best, torch.full_like(best, -1.0)))

    def _candidates(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best boxes `(n, classes, k, 4)` and scores `(n, classes, k)` per class."""
        best, index = scores.transpose(1, 2).topk(min(self.top_k, scores.shape[1]), dim=2)
        batch, classes, count = index.shape
        flat = index.reshape(batch, classes * count, 1).expand(-1, -1, 4)
        return boxes.gather(1, flat).reshape(batch, classes, count, 4), best

    def _suppress(self, boxes: Tensor, scores: Tensor) -> Tensor:
        count = boxes.shape[2]
        shifted = torch.cat([boxes[..., :2], boxes[..., 2:] + self.pixel_offset], dim=-1)
        mask: Tensor = survivors(
            shifted.reshape(-1, count, 4),
            scores.reshape(-1, count),
            self.iou_threshold,
            self.score_threshold,
        )
        return mask.reshape(scores.shape)

    def _gather(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, classes, count = scores.shape
        available = min(self.keep, classes * count)
        best, place = scores.reshape(batch, -1).topk(available, dim=1)
        chosen = boxes.reshape(batch, -1, 4).gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
        real = best >= 0
        padding = (0, self.keep - available)
        return (
            nn.functional.pad(chosen * real.unsqueeze(-1), (0, 0, *padding)),
            nn.functional.pad(best * real, padding),
            nn.functional.pad(torch.where(real, place // count, -1), padding, value=-1),
            real.sum(dim=1),
        )
