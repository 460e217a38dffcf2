"""Mean intersection over union, and pixel accuracy, from one confusion matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flyweight.data.batch import IGNORE, Batch, MapPrediction


class MeanIou:
    """Mean intersection over union; a `Metric`.

    Pixels labelled `IGNORE` do not count. A class that neither occurs nor is predicted has no IoU
    and is left out of the mean.

    Args:
        labels: Class names.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._counts = torch.zeros(len(labels), len(labels), dtype=torch.int64)

    def update(self, predictions: Sequence[MapPrediction], batch: Batch) -> None:
        """Add the predictions of one batch, at the size of the original images."""
        classes = len(self._labels)
        for prediction, target in zip(predictions, batch.targets, strict=True):
            right = target.full.cpu().flatten().to(torch.int64)
            found = prediction.labels.cpu().flatten().to(torch.int64)
            counts = right != IGNORE
            pairs = right[counts] * classes + found[counts]
            self._counts += pairs.bincount(minlength=classes**2).reshape(classes, classes)

    def compute(self) -> dict[str, float]:
        """Return `miou`, pixel accuracy as `accuracy`, and `iou/NAME` of every class."""
        counts = self._counts.double()
        hits = counts.diagonal()
        iou = hits / (counts.sum(dim=0) + counts.sum(dim=1) - hits)
        return {
            "miou": float(iou.nanmean()),
            "accuracy": float(hits.sum() / counts.sum()),
            **{f"iou/{name}": float(v) for name, v in zip(self._labels, iou.tolist(), strict=True)},
        }

    def state(self) -> Tensor:
        """Return the confusion matrix: a row per true class, a column per predicted class."""
        return self._counts

    def merge(self, state: Tensor) -> None:
        """Add the confusion matrix of another metric."""
        self._counts = self._counts + state
