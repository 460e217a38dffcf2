"""Classification: loss, decoding, metric and drawing."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.config.tasks import ClassifyConfig
from flyweight.data.batch import Batch, ClassPrediction
from flyweight.errors import ConfigError, TrainingError
from flyweight.tasks.drawing.canvas import Drawable, drawn_on
from flyweight.tasks.drawing.tags import with_tags
from flyweight.tasks.metrics.top_k import TopK
from flyweight.tasks.task import Listed, Metric, Task

LISTED = 5
"""At most so many classes are listed."""


class Classification(Task):
    """Classification for a network that returns one score per class; a `Task`.

    Args:
        labels: Class names in the order of their indices.
        config: Settings of classification.

    Raises:
        ConfigError: There is no label.
    """

    name = "classify"
    primary = "top1"

    def __init__(self, labels: Sequence[str], config: ClassifyConfig | None = None) -> None:
        if not labels:
            raise ConfigError(
                "A classifier must have at least one label. Received: none. "
                "Name the classes in the data set's label list."
            )
        self.labels = tuple(labels)
        self.config = ClassifyConfig() if config is None else config

    def loss(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy with smoothed labels (arXiv 1512.00567, section 7).

        Where mixup blended two images, the labels of both count with their shares.
        """
        self._require_scores(outputs)
        targets = [target.mixed or (target.label, 1.0) for target in batch.targets]
        own = torch.tensor([target.label for target in batch.targets], device=outputs.device)
        other = torch.tensor([label for label, _ in targets], device=outputs.device)
        share = outputs.new_tensor([share for _, share in targets])
        losses = self._entropy(outputs, own)
        if any(target.mixed is not None for target in batch.targets):
            losses = share * losses + (1 - share) * self._entropy(outputs, other)
        return {"loss": losses.mean()}

    def decode(self, outputs: Tensor, batch: Batch) -> list[ClassPrediction]:
        """Return the probabilities of each image, on the CPU."""
        self._require_scores(outputs)
        scores = outputs.detach().float().softmax(dim=1).cpu()
        return [ClassPrediction(row) for row in scores]

    def decoder(self) -> nn.Module:
        """Return the softmax that an export can append."""
        return nn.Softmax(dim=1)

    def metric(self) -> Metric:
        """Return a new metric."""
        return TopK(self.labels)

    def draw(self, image: Drawable, prediction: ClassPrediction, *, threshold: float) -> Drawable:
        """Return the image with the classes that `listed` names written on it."""
        rows = self._best(prediction, threshold)
        lines = [(f"{self.labels[index]} {score:.2f}", index) for index, score in rows]
        return drawn_on(image, partial(with_tags, lines=lines))

    def listed(self, prediction: ClassPrediction, *, threshold: float) -> list[Listed]:
        """Return label and score of the best class, and of others from `threshold` up."""
        return [
            {"label": self.labels[index], "score": round(score, 4)}
            for index, score in self._best(prediction, threshold)
        ]

    def _best(self, prediction: ClassPrediction, threshold: float) -> list[tuple[int, float]]:
        values, indices = prediction.scores.topk(min(LISTED, len(self.labels)))
        pairs = list(zip(indices.tolist(), values.tolist(), strict=True))
        return pairs[:1] + [(index, score) for index, score in pairs[1:] if score >= threshold]

    def _entropy(self, outputs: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing
        return functional.cross_entropy(
            outputs, labels, label_smoothing=smoothing, reduction="none"
        )

    def _require_scores(self, outputs: object) -> None:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if not isinstance(outputs, Tensor) or shape[1:] != (len(self.labels),):
            raise TrainingError(
                f"A classifier must return scores of shape (n, {len(self.labels)}). "
                f"Received: {shape}. Correct the network, or num_classes."
            )
