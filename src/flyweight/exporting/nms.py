"""Non-maximum suppression as the last layer of an exported graph.

Eager PyTorch computes `zoo.detectors.suppression.survivors` with torchvision; ONNX gets one
NonMaxSuppression node for it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.zoo.detectors.suppression import best_of_each_class, keep_best, survivors

Decode = Callable[[Any], tuple[Tensor, Tensor]]

_MAX_SURVIVORS = 2**31 - 1


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
        decode: Turns raw outputs into boxes (xyxy, `(n, anchors, 4)`, or one per class,
            `(n, anchors, classes, 4)`) and scores (`(n, anchors, classes)`).
        score_threshold: Score that a detection must exceed, from 0.
        iou_threshold: Greatest overlap of two boxes of one class.
        top_k: Candidates per class.
        keep: Detections per image.
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
        """Return the detections of every image, by falling score, padded to `keep`.

        Args:
            outputs: Whatever the network returns.

        Returns:
            boxes `(n, keep, 4)` xyxy float32, scores `(n, keep)`, labels `(n, keep)` int64 and
            counts `(n,)` int64. Rows from `counts` on are padding: zeros, and label -1.
        """
        candidates, best = best_of_each_class(*self.decode(outputs), self.top_k)
        return keep_best(candidates, best, self._survivors(candidates, best), self.keep)

    def _survivors(self, boxes: Tensor, scores: Tensor) -> Tensor:
        count = boxes.shape[2]
        shifted = torch.cat([boxes[..., :2], boxes[..., 2:] + self.pixel_offset], dim=-1)
        mask: Tensor = survivors(
            shifted.reshape(-1, count, 4),
            scores.reshape(-1, count),
            self.iou_threshold,
            self.score_threshold,
        )
        return mask.reshape(scores.shape)
