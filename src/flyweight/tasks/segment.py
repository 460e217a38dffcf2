"""Segmentation: loss, decoding, metric and drawing."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.config.tasks import SegmentConfig
from flyweight.data.batch import IGNORE, Batch, ImageTarget, MapPrediction
from flyweight.errors import ConfigError, TrainingError
from flyweight.tasks.drawing.canvas import Drawable, drawn_on
from flyweight.tasks.drawing.maps import draw_map
from flyweight.tasks.metrics.mean_iou import MeanIou
from flyweight.tasks.task import Listed, Metric, Task


class Segmentation(Task):
    """Segmentation for a network that returns one score map per class; a `Task`.

    Maps may be smaller than the input; they are resized to it.

    Args:
        labels: Class names in the order of their indices; at most 255.
        config: Settings of segmentation.

    Raises:
        ConfigError: There are no labels, or too many.
    """

    name = "segment"
    primary = "miou"

    def __init__(self, labels: Sequence[str], config: SegmentConfig | None = None) -> None:
        if not 0 < len(labels) <= IGNORE:
            raise ConfigError(
                f"A segmenter must have 1 to {IGNORE} labels. Received {len(labels)}. "
                "Name the classes in the data set's label list."
            )
        self.labels = tuple(labels)
        self.config = SegmentConfig() if config is None else config

    def loss(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy over all labelled pixels, plus the weighted Dice loss if any."""
        self._require_scores(outputs)
        labels = torch.stack([target.labels for target in batch.targets]).to(torch.int64)
        scores = _resized(outputs, tuple(labels.shape[-2:]))
        weight = self.config.class_weights
        entropy = functional.cross_entropy(
            scores,
            labels,
            weight=None if weight is None else scores.new_tensor(weight),
            ignore_index=IGNORE,
            reduction="sum" if weight is None else "mean",
        )
        if weight is None:
            # A batch without a single labelled pixel has a loss of 0, not of 0 / 0.
            entropy = entropy / (labels != IGNORE).sum().clamp(min=1)
        if not self.config.dice:
            return {"loss": entropy}
        dice = dice_loss(scores, labels)
        return {"loss": entropy + self.config.dice * dice, "entropy": entropy, "dice": dice}

    def decode(self, outputs: Tensor, batch: Batch) -> list[MapPrediction]:
        """Return the class of every pixel of each original image, on the CPU."""
        self._require_scores(outputs)
        maps = []
        with torch.no_grad():
            scores = _resized(outputs.float(), tuple(batch.images.shape[-2:]))
            for row, target in zip(scores, batch.targets, strict=True):
                shown = _without_padding(row, target)
                labels = _resized(shown[None], target.original_size)[0].argmax(dim=0)
                maps.append(MapPrediction(labels.to(torch.uint8).cpu()))
        return maps

    def decoder(self) -> nn.Module:
        """Return the module that computes the map of labels from the scores."""
        return LabelMap()

    def metric(self) -> Metric:
        """Return a new metric."""
        return MeanIou(self.labels)

    def draw(self, image: Drawable, prediction: MapPrediction, *, threshold: float) -> Drawable:
        """Return the image with the colours of the classes over it; `threshold` has no effect."""
        labels = prediction.labels.numpy()
        return drawn_on(image, partial(draw_map, labels=labels, names=self.labels))

    def listed(self, prediction: MapPrediction, *, threshold: float) -> list[Listed]:
        """Return label and share of the pixels for every class in the image, largest first."""
        counts = prediction.labels.flatten().to(torch.int64).bincount(minlength=len(self.labels))
        order = counts.argsort(descending=True, stable=True).tolist()
        total = max(1, int(counts.sum()))
        return [
            {"label": self.labels[index], "share": round(int(counts[index]) / total, 4)}
            for index in order
            if counts[index]
        ]

    def _require_scores(self, outputs: object) -> None:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if not isinstance(outputs, Tensor) or outputs.ndim != 4 or shape[1] != len(self.labels):
            raise TrainingError(
                f"A segmenter must return scores of shape (n, {len(self.labels)}, h, w). "
                f"Received: {shape}. Correct the network, or num_classes."
            )


class LabelMap(nn.Module):
    """The best class of every pixel, as uint8."""

    def forward(self, scores: Tensor) -> Tensor:
        """Return `(n, h, w)` uint8 for scores `(n, classes, h, w)`."""
        return scores.argmax(dim=1).to(torch.uint8)


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return one minus the mean soft Dice coefficient of the classes (arXiv 1606.04797).

    Args:
        scores: `(n, classes, h, w)` before softmax.
        labels: `(n, h, w)` int64; `IGNORE` does not count.

    Returns:
        The mean over the classes that occur; 0 if none occurs.
    """
    counted = (labels != IGNORE)[:, None]
    wanted = functional.one_hot(labels.where(labels != IGNORE, 0), scores.shape[1])
    wanted = wanted.permute(0, 3, 1, 2) * counted
    found = scores.softmax(dim=1) * counted
    common = (found * wanted).sum(dim=(0, 2, 3))
    total = (found + wanted).sum(dim=(0, 2, 3))
    present = wanted.sum(dim=(0, 2, 3)) > 0
    losses = 1 - 2 * common / total.clamp(min=1e-6)
    return (losses * present).sum() / present.sum().clamp(min=1)


def placed_labels(labels: Tensor, target: ImageTarget) -> Tensor:
    """Return labels `(h, w)` of an input as `(H, W)` uint8 at the size of the original image.

    Scores can be interpolated and labels cannot, so borders are rougher than those of `decode`.
    """
    shown = _without_padding(labels[None].float(), target)[None]
    placed = functional.interpolate(shown, size=target.original_size, mode="nearest-exact")
    return placed[0, 0].to(torch.uint8)


def _without_padding(maps: Tensor, target: ImageTarget) -> Tensor:
    """Return `(channels, h, w)` without the padding, which shows no part of the image."""
    height, width = target.original_size
    across, down = target.scale
    return maps[:, : round(height / down), : round(width / across)]


def _resized(scores: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(scores.shape[-2:]) == size:
        return scores
    return functional.interpolate(scores, size=size, mode="bilinear")
