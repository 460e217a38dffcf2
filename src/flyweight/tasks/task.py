"""What a model is for. The engine, sensitivity and the report know a model only through this."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

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


Listed = dict[str, Any]
"""One line of what `predict` lists; JSON values."""


class Task(Protocol):
    """Loss, decoding, metric and images for one kind of model.

    Attributes:
        name: "detect", "classify" or "segment".
        labels: Class names in the order of their indices.
        primary: The metric (a key of `Metric.compute`) that decides which checkpoint is best;
            higher is better.
    """

    name: str
    labels: tuple[str, ...]
    primary: str

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the raw outputs of `model` for `batch`.

        Detectors that choose what to learn from inside the network also hand it the targets while
        it trains; everything that has parameters must run inside the call of `model`.
        """
        return model(batch.images)

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar to minimise under "loss" and its terms under their names."""
        ...

    def loss_at_rest(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `loss` of a model in evaluation mode, for those who look at its gradients.

        The model's normalisations keep their statistics.
        """
        return self.loss(self.forward(model, batch), batch)

    def decode(self, outputs: Any, batch: Batch) -> Any:
        """Turn raw outputs into predictions, one per image."""

    def decoder(self) -> nn.Module | None:
        """Return what an export appends to the network; None where the raw outputs say it all.

        Of a detector, it makes boxes `(n, b, 4)` in input pixels and scores `(n, b, classes)`; of a
        classifier, probabilities; of a segmenter, the map of labels.
        """
        return None

    def finisher(self) -> nn.Module | None:
        """Return what makes detections of the raw outputs of a network that suppresses itself.

        None for all others, whose decoded boxes an export suppresses.
        """
        return None

    def metric(self) -> Metric:
        """Return a fresh metric."""
        ...

    def draw(self, image: Path, prediction: Any, save_to: Path, *, threshold: float) -> None:
        """Draw what `prediction` says onto the image and save it."""

    def listed(self, prediction: Any, *, threshold: float) -> list[Listed]:
        """Return what `prediction` says, a line for each thing found, best first."""
        ...
