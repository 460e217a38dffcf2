"""What a model is for. The engine, sensitivity and the report know a model only through this."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from flyweight.data.batch import Batch


class Metric(Protocol):
    """Collects predictions over a data set and turns them into numbers.

    A metric's `state()` is a plain picklable value; `merge` adds another metric's state, so that
    several devices evaluate shares of one set and obtain the numbers of the whole.
    """

    def update(self, predictions: Any, batch: Batch) -> None:
        """Add what `Task.decode` returned for `batch`."""

    def compute(self) -> dict[str, float]:
        """Return the named numbers; fractions in 0..1, not percent."""

    def state(self) -> Any:
        """Return everything collected so far."""

    def merge(self, state: Any) -> None:
        """Add the state of another metric of the same kind."""


class Task(Protocol):
    """Loss, decoding, metric and pictures for one kind of model.

    Attributes:
        name: "detect", later also "classify", "segment", "face".
        labels: Class names in the order of their indices.
        primary: The metric (a key of `Metric.compute`) that decides which checkpoint is best;
            higher is better.
    """

    name: str
    labels: tuple[str, ...]
    primary: str

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar to minimise under "loss" and its terms under their names."""

    def decode(self, outputs: Any, batch: Batch) -> Any:
        """Turn raw outputs into predictions, one per picture."""

    def metric(self) -> Metric:
        """Return a fresh metric."""

    def draw(self, image: Path, prediction: Any, save_to: Path, *, threshold: float) -> None:
        """Draw what `prediction` says onto the picture and save it."""
