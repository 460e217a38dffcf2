"""Mean average precision of Pascal VOC.

A detection is right if the object of its class that it overlaps most is not matched with a better
detection yet, and their IoU exceeds 0.5. Boxes are inclusive pixel ranges, so a box from 3 to 5 is
3 pixels wide ("+1"). Difficult objects and crowds, and detections of them, do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import Batch, BoxPrediction
from flyweight.tasks.decoding.scale import original_boxes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Method = Literal["11point", "area", "integral"]

IOU_THRESHOLD = 0.5
_WRONG, _RIGHT, _IGNORED = 0, 1, 2


def inclusive_iou(first: Floats, second: Floats) -> Floats:
    """Return the IoU `(n, m)` of boxes `(n, 4)` and `(m, 4)`, inclusive pixel ranges xyxy."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (first, second)]
    ious: Floats = shared / (areas[0][:, None] + areas[1][None] - shared)
    return ious


def average_precision(outcomes: NDArray[np.bool_], num_objects: int, method: Method) -> float:
    """Return the average precision of one class.

    Args:
        outcomes: Whether each detection is right, by descending score.
        num_objects: Number of objects, at least one.
        method: "11point" averages, over the recalls 0, 0.1, ..., 1, the best precision at that
            recall or beyond (VOC 2007). "area" is the area under that best precision (VOC 2010 and
            later). "integral" is the area under the precision itself (PaddleDetection's other
            choice, scikit-learn's `average_precision_score`).
    """
    if not len(outcomes):
        return 0.0
    hits = outcomes.cumsum()
    precision = hits / np.arange(1, len(outcomes) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if method == "11point":
        # recall >= k / 10 in whole numbers, so that 3 of 10 objects have a recall of 0.3.
        wanted = np.arange(11) * num_objects
        first = np.searchsorted(hits * 10, wanted)
        return float(np.append(best, 0.0)[first].sum() / 11)
    heights = best if method == "area" else precision
    return float(heights[outcomes].sum() / num_objects)


@dataclass(frozen=True)
class _Detections:
    """Detections of all images so far, one row each.

    Attributes:
        scores: `(n,)` float64.
        labels: `(n,)` int64.
        outcomes: `(n,)` int64: wrong, right or ignored.
        images: `(n,)` int64, position of the image in its set.
        ranks: `(n,)` int64, position of the detection within its image and class.
    """

    scores: Floats
    labels: Integers
    outcomes: Integers
    images: Integers
    ranks: Integers


class VocMap:
    """Mean average precision at an IoU of 0.5; a `Metric`.

    Numbers: `map_50`, the mean over classes that have objects (0 if none has), and `ap/<label>`
    for each of these classes.

    Args:
        labels: Class names.
        method: See `average_precision`.
    """

    def __init__(self, labels: Sequence[str], *, method: Method = "11point") -> None:
        self.labels = tuple(labels)
        self.method = method
        self._counts: Integers = np.zeros(len(self.labels), dtype=np.int64)
        self._detections: list[_Detections] = []

    def update(self, predictions: Sequence[BoxPrediction], batch: Batch) -> None:
        """Match the predictions with the objects of their images."""
        for prediction, target in zip(predictions, batch.targets, strict=True):
            objects = original_boxes(target)
            object_labels = target.labels.numpy(force=True)
            ignored = (target.difficult | target.crowd).numpy(force=True)
            self._counts += np.bincount(object_labels[~ignored], minlength=len(self.labels))
            boxes = prediction.boxes.numpy(force=True).astype(np.float64)
            scores = prediction.scores.numpy(force=True).astype(np.float64)
            labels = prediction.labels.numpy(force=True)
            for label in np.unique(labels):
                mine = np.flatnonzero(labels == label)
                mine = mine[np.argsort(-scores[mine], kind="stable")]
                theirs = object_labels == label
                outcomes = _match(boxes[mine], objects[theirs], ignored[theirs])
                self._detections.append(
                    _Detections(
                        scores[mine],
                        labels[mine],
                        outcomes,
                        np.full(len(mine), target.image_id),
                        np.arange(len(mine)),
                    )
                )

    def compute(self) -> dict[str, float]:
        """Return `map_50` and the average precision of each class."""
        found = vars(_joined(self._detections))
        values = {}
        for index, (name, count) in enumerate(zip(self.labels, self._counts, strict=True)):
            if count:
                right = counted_outcomes(found, index)[1]
                values[name] = average_precision(right, int(count), self.method)
        mean = float(np.mean(list(values.values()))) if values else 0.0
        return {"map_50": mean, **{f"ap/{name}": value for name, value in values.items()}}

    def state(self) -> dict[str, Any]:
        """Return the numbers of objects, and all detections with their outcomes, as arrays."""
        return {"counts": self._counts.copy(), **vars(_joined(self._detections))}

    def merge(self, state: dict[str, Any]) -> None:
        """Add the state of another metric with the same labels."""
        columns = dict(state)
        self._counts = self._counts + columns.pop("counts")
        self._detections.append(_Detections(**columns))


def make_voc_map(labels: Sequence[str], config: DetectConfig) -> VocMap:
    """Return the metric that a detector's settings name `voc_METHOD`."""
    return VocMap(labels, method=cast(Method, config.metric.removeprefix("voc_")))


def counted_outcomes(state: Mapping[str, Any], label: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the detections of one class that count, by descending score.

    Args:
        state: `VocMap.state()`.
        label: Index of the class.

    Returns:
        The image of each detection and whether the detection is right, both `(n,)`. Equal scores
        are ordered by image, so that shares of a set give the numbers of the whole set.
    """
    mine = np.flatnonzero((state["labels"] == label) & (state["outcomes"] != _IGNORED))
    keys = (state["ranks"][mine], state["images"][mine], -state["scores"][mine])
    mine = mine[np.lexsort(keys)]
    return state["images"][mine], state["outcomes"][mine] == _RIGHT


def _match(boxes: Floats, objects: Floats, ignored: NDArray[np.bool_]) -> Integers:
    """Return the outcome of each detection of one class in one image, best first."""
    outcomes = np.full(len(boxes), _WRONG)
    if not len(objects):
        return outcomes
    ious = inclusive_iou(boxes, objects)
    claimed = np.zeros(len(objects), dtype=bool)
    for row, best in enumerate(ious.argmax(axis=1)):
        if ious[row, best] <= IOU_THRESHOLD:
            continue
        if ignored[best]:
            outcomes[row] = _IGNORED
        elif not claimed[best]:
            outcomes[row] = _RIGHT
            claimed[best] = True
    return outcomes


def _joined(parts: Sequence[_Detections]) -> _Detections:
    empty = np.zeros(0, dtype=np.int64)
    parts = (_Detections(np.zeros(0), empty, empty, empty, empty), *parts)
    return _Detections(
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        outcomes=np.concatenate([part.outcomes for part in parts]),
        images=np.concatenate([part.images for part in parts]),
        ranks=np.concatenate([part.ranks for part in parts]),
    )
