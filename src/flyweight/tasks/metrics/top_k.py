"""Top-1 and top-5 accuracy of classification."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flyweight.data.batch import Batch, ClassPrediction

_PLACES = (1, 5)


class TopK:
    """Share of images whose true class is the first, or among the first five; a `Metric`.

    Of equal scores the class of the lower index comes first. Top-5 is left out if there are at most
    five classes, because it would always be 1.

    Args:
        labels: Class names.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._places = tuple(place for place in _PLACES if place == 1 or place < len(labels))
        self._hits = torch.zeros(len(self._places), dtype=torch.int64)
        self._count = 0

    def update(self, predictions: Sequence[ClassPrediction], batch: Batch) -> None:
        """Add the predictions of one batch."""
        if not predictions:
            return
        scores = torch.stack([prediction.scores for prediction in predictions]).cpu()
        right = torch.tensor([target.label for target in batch.targets])
        places = _place_of(scores, right)
        self._hits += torch.tensor([int((places < place).sum()) for place in self._places])
        self._count += len(predictions)

    def compute(self) -> dict[str, float]:
        """Return `top1`, and `top5` for more than five classes; nan without images."""
        hits = self._hits.tolist()
        return {
            f"top{place}": hit / self._count if self._count else float("nan")
            for place, hit in zip(self._places, hits, strict=True)
        }

    def state(self) -> tuple[Tensor, int]:
        """Return the number of hits for top-1 and top-5, and the number of images."""
        return self._hits, self._count

    def merge(self, state: tuple[Tensor, int]) -> None:
        """Add the state of another metric."""
        hits, count = state
        self._hits = self._hits + hits
        self._count += count


def _place_of(scores: Tensor, right: Tensor) -> Tensor:
    """Return how many classes come before the true one, `(n,)`, for scores `(n, classes)`."""
    own = scores.gather(1, right[:, None])
    before = torch.arange(scores.shape[1])[None] < right[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(dim=1)
