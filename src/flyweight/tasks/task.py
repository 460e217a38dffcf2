"""Task protocol: loss, decoding, metric and drawing.

The engine, the sensitivity scan and the report use a model only through its task.
"""

from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import Batch
from flyweight.on_demand import load
from flyweight.tasks.drawing.canvas import Drawable, Pixels

_PREDICT = "flyweight.tasks.one_image:predict"  # Imported on use, because it needs torchvision.


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
"""One found thing, as the command `predict` lists it; JSON values."""


class Task(Protocol):
    """Loss, decoding, metric and drawing for one kind of model.

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

        Two-stage detectors sample regions to learn from inside the network, so their task also
        passes the targets in training mode. Everything that has parameters must run inside the
        call of `model`.
        """
        return model(batch.images)

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar to minimise under "loss", and its terms under their names."""
        ...

    def loss_at_rest(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return `loss` of a model in evaluation mode, for criteria that need its gradients.

        Normalisation layers keep their statistics.
        """
        return self.loss(self.forward(model, batch), batch)

    def decode(self, outputs: Any, batch: Batch) -> Any:
        """Turn raw outputs into predictions, one per image."""

    def predict(
        self, model: nn.Module, image: Image.Image | Pixels, preprocessing: Preprocessing
    ) -> Any:
        """Return the prediction for one image in memory, in the pixels of that image.

        Args:
            model: In evaluation mode, on any device.
            image: An array `(height, width, 3)` uint8 RGB, or a Pillow image.
            preprocessing: How the network's input is made of it.

        Raises:
            DataError: An array of another shape or type.
        """
        return load(_PREDICT)(self, model, image, preprocessing)

    def decoder(self) -> nn.Module | None:
        """Return the module that an export appends to the network; None if there is none.

        For a detector it makes boxes `(n, b, 4)` in input pixels and scores `(n, b, classes)`; for
        a classifier, probabilities; for a segmenter, the map of labels.
        """
        return None

    def finisher(self) -> nn.Module | None:
        """Return the module that makes detections of a network that suppresses boxes itself.

        None for all others: an export appends the suppression to their decoded boxes.
        """
        return None

    def metric(self) -> Metric:
        """Return a fresh metric."""
        ...

    def draw(self, image: Drawable, prediction: Any, *, threshold: float) -> Drawable:
        """Return the image with the prediction drawn on it, as an image of the same kind.

        Args:
            image: An array `(height, width, 3)` uint8 RGB, or a Pillow image; it stays as it is.
            prediction: Of this image, from `decode` or `predict`.
            threshold: Lowest score that is drawn.

        Raises:
            DataError: An array of another shape or type.
        """
        ...

    def listed(self, prediction: Any, *, threshold: float) -> list[Listed]:
        """Return the found things that score at least `threshold`, best first."""
        ...
