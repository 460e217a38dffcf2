"""Outcomes of the networks of a report on every image of the validation split."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.config.settings import Config
from flyweight.data.batch import Batch, ClassPrediction
from flyweight.data.records import BoxSet, ImageSet, MapSet
from flyweight.engine.evaluate import predict_batches
from flyweight.pipeline.inputs import load_model, task_of, val_batches
from flyweight.progress import Progress, progress_over
from flyweight.report.class_results import ClassResult, ClassResults, Confusion
from flyweight.report.class_sections import MOST_CLASSES
from flyweight.report.rows import Curve
from flyweight.tasks.metrics.box_intervals import resampled_metric
from flyweight.tasks.metrics.image_intervals import interval_of, resampled_iou, resampled_mean
from flyweight.tasks.metrics.mean_iou import MeanIou
from flyweight.tasks.metrics.voc_intervals import difference_interval, draw_images
from flyweight.tasks.metrics.voc_map import Floats, Integers, VocMap, counted_outcomes
from flyweight.tasks.task import Task

_CURVE_POINTS = 200


@dataclass(frozen=True)
class Outcomes:
    """What one network does on the images of a split.

    Attributes:
        value: The main metric.
        quality: How good the prediction of each image is, `(images,)`, from 0 to 1: the metric of
            this image alone, or the probability of its class.
        resampled: The main metric on resamples of the images; None for metrics that are not
            resampled.
        by_class: Metric of each class; None where it is not defined.
        counts: Objects, images or pixels of each class.
        confusion: A row per true class, a column per predicted class; None for detectors.
        curve: Recall and precision over all classes; None for other tasks.
    """

    value: float
    quality: Floats
    resampled: Floats | None
    by_class: tuple[float | None, ...]
    counts: tuple[int, ...]
    confusion: Integers | None = None
    curve: tuple[Floats, Floats] | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the main metric, from resampled images; None if not resampled."""
        return None if self.resampled is None else interval_of(self.resampled)

    def difference(self, other: "Outcomes") -> tuple[float, float] | None:
        """Return the 95 % interval of the difference of another network from this one."""
        if self.resampled is None or other.resampled is None:
            return None
        return difference_interval(self.resampled, other.resampled)


def outcomes_of(
    path: Path, config: Config, images: ImageSet, *, name: str, progress: Progress
) -> Outcomes:
    """Evaluate a checkpoint image by image.

    Args:
        path: The checkpoint.
        config: Settings of preprocessing, decoding and metrics.
        images: The split.
        name: Of the network, for the progress.
        progress: Receives progress.

    Raises:
        CheckpointError: The file is damaged or of another network.
    """
    model, _ = load_model(path, config)
    task = task_of(model, images.labels, config)
    found = _Collected(task, images)
    batches = val_batches(config, images)
    total = len(batches) if isinstance(batches, Sized) else None
    predicted = predict_batches(model, task, batches)
    for batch, predictions in progress_over(predicted, f"evaluate {name}", progress, total):
        found.add(batch, predictions)
    return found.outcomes()


@dataclass
class _Collected:
    """The metric of all images, and what single images contribute."""

    task: Task
    images: ImageSet
    metric: Any = None
    detail: Any = None
    quality: list[float] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)
    matrices: list[Integers] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metric = self.task.metric()
        if isinstance(self.images, BoxSet):
            same = isinstance(self.metric, VocMap)
            self.detail = self.metric if same else VocMap(self.images.labels, method="area")

    def add(self, batch: Batch, predictions: Sequence[Any]) -> None:
        """Add the predictions of a batch."""
        self.metric.update(predictions, batch)
        if self.detail is not None and self.detail is not self.metric:
            self.detail.update(predictions, batch)
        for index, prediction in enumerate(predictions):
            self._add_one(
                Batch(batch.images[index : index + 1], (batch.targets[index],)), prediction
            )

    def _add_one(self, batch: Batch, prediction: Any) -> None:
        target: Any = batch.targets[0]
        if isinstance(prediction, ClassPrediction):
            scores = prediction.scores.cpu()
            self.quality.append(float(scores[target.label]))
            self.pairs.append((target.label, int(scores.argmax())))
            self.hits.append(float(self.pairs[-1][0] == self.pairs[-1][1]))
            return
        alone: Any = VocMap(self.images.labels) if self.detail is not None else self.task.metric()
        alone.update([prediction], batch)
        self.quality.append(next(iter(alone.compute().values())))
        if isinstance(alone, MeanIou):
            self.matrices.append(alone.state().numpy())

    def outcomes(self) -> Outcomes:
        """Return the outcomes of all images that were added."""
        value = float(self.metric.compute()[self.task.primary])
        quality = np.nan_to_num(np.array(self.quality, dtype=np.float64))
        draws = draw_images(len(quality))
        if isinstance(self.images, BoxSet):
            return self._of_boxes(value, quality, draws, self.images)
        classes = len(self.images.labels)
        if self.matrices:
            stacked = np.stack(self.matrices)
            matrix, resampled = stacked.sum(axis=0), resampled_iou(stacked, draws)
            union = matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal()
        else:
            matrix = np.zeros((classes, classes), dtype=np.int64)
            for right, found in self.pairs:
                matrix[right, found] += 1
            resampled = resampled_mean(np.array(self.hits), draws)
            union = matrix.sum(axis=1)
        by_class = [
            float(hit / whole) if whole else None
            for hit, whole in zip(matrix.diagonal(), union, strict=True)
        ]
        counts = tuple(int(count) for count in matrix.sum(axis=1))
        return Outcomes(value, quality, resampled, tuple(by_class), counts, confusion=matrix)

    def _of_boxes(self, value: float, quality: Floats, draws: Integers, images: BoxSet) -> Outcomes:
        state = self.detail.state()
        resampled = resampled_metric(self.metric, images, draws)
        numbers = self.detail.compute()
        return Outcomes(
            value,
            quality,
            resampled,
            tuple(numbers.get(f"ap/{label}") for label in images.labels),
            tuple(int(count) for count in state["counts"]),
            curve=_precision_recall(state),
        )


def _precision_recall(state: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Return recall and precision over all classes, of at most 200 thresholds."""
    parts = [counted_outcomes(state, label) for label in range(len(state["counts"]))]
    scores = [_counted_scores(state, label) for label in range(len(state["counts"]))]
    right = np.concatenate([part[1] for part in parts])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = right[order].cumsum()
    total = max(1, int(state["counts"].sum()))
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), _CURVE_POINTS)).astype(int))
    return recall[kept], precision[kept]


def _counted_scores(state: Mapping[str, Any], label: int) -> Floats:
    """Return the scores of the detections that `counted_outcomes` returns, in its order."""
    mine = state["labels"] == label
    counted: Floats = np.sort(state["scores"][mine & (state["outcomes"] != 2)])[::-1]
    return counted


def class_results(outcomes: Mapping[str, Outcomes], images: ImageSet) -> ClassResults:
    """Return the metric of every class by network."""
    first = next(iter(outcomes.values()))
    if first.curve is not None:
        metric, counted = "Average precision at IoU 0.5", "objects"
    elif _is_of_pixels(images):
        metric, counted = "Intersection over union", "pixels"
    else:
        metric, counted = "Accuracy", "images"
    classes = tuple(
        ClassResult(
            name=label,
            count=first.counts[index],
            values=tuple(found.by_class[index] for found in outcomes.values()),
        )
        for index, label in enumerate(images.labels)
    )
    return ClassResults(metric=metric, counted=counted, stages=tuple(outcomes), classes=classes)


def confusions(outcomes: Mapping[str, Outcomes], images: ImageSet) -> tuple[Confusion, ...]:
    """Return the confusion matrix of every network; none for more than 20 classes."""
    if len(images.labels) > MOST_CLASSES:
        return ()
    return tuple(
        Confusion(
            stage=name,
            counted="pixels" if _is_of_pixels(images) else "images",
            labels=images.labels,
            counts=tuple(tuple(int(count) for count in row) for row in found.confusion),
        )
        for name, found in outcomes.items()
        if found.confusion is not None
    )


def precision_recall(outcomes: Mapping[str, Outcomes]) -> tuple[Curve, ...]:
    """Return a line of precision by recall for every detector."""
    return tuple(
        Curve(
            name="Precision",
            series=name,
            x=tuple(100 * found.curve[0]),
            y=tuple(found.curve[1]),
            unit="fraction",
            x_unit="recall (%)",
        )
        for name, found in outcomes.items()
        if found.curve is not None and len(found.curve[0])
    )


def _is_of_pixels(images: ImageSet) -> bool:
    return isinstance(images, MapSet)
