"""Non-maximum suppression as the last layer of an exported graph.

PyTorch computes `zoo.detectors.suppression.survivors` with torchvision; `onnx_graph` writes one
NonMaxSuppression node for it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.zoo.detectors.suppression import best_of_each_class, keep_best, survivors

Decode = Callable[[Any], tuple[Tensor, Tensor]]


class Detections(nn.Module):
    """Decoding and class-wise non-maximum suppression, appended after a detector.

    The order is that of PaddleDetection's `multiclass_nms`: per class, boxes that score more than
    `score_threshold`, of these the `top_k` best, suppression, then the `keep` best of all classes.

    Args:
        decode: Turns raw outputs into boxes (xyxy, `(n, anchors, 4)`, or one per class,
            `(n, anchors, classes, 4)`) and scores (`(n, anchors, classes)`).
        score_threshold: Score that a detection must exceed, from 0.
        iou_threshold: Greatest overlap of two boxes of one class.
        top_k: Candidates per class.
        keep: Detections per image.
        pixel_offset: Added to widths and heights in the overlap; 1 reproduces PaddleDetection,
            which counts the pixels from first to last.
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
        """Return the detections of every image, by descending score, padded to `keep`.

        Args:
            outputs: The outputs of the network, as `decode` takes them.

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
