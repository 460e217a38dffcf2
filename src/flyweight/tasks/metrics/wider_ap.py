"""Average precision of WIDER FACE, at its levels easy, medium and hard.

Yang et al. 2016, https://arxiv.org/abs/1511.06523. The protocol is that of the published tools:

1. Scores are mapped linearly to 0..1 by the lowest and highest score of the whole set.
2. In each image, by descending score, a detection is matched with the face that it overlaps most,
   if their IoU is at least 0.5 (boxes are inclusive pixel ranges, "+1"). It is right if that face
   counts at the level and has no better detection, ignored if the face does not count, else wrong.
   Detections in images without faces are ignored.
3. Precision and recall are measured at 1000 thresholds from 0.999 down to 0. The average precision
   is the area under the best precision at a recall or a higher one.

The published Python tool computes overlaps in floating point, and so does this module. The MATLAB
tool rounds them to 0 or 1, because its boxes are integers, so it takes the first face that overlaps
by at least half instead of the best one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import Batch, BoxPrediction
from flyweight.data.layouts.wider import event_of
from flyweight.data.layouts.wider_truth import LEVELS, ImageTruth, read_truth
from flyweight.errors import DataError, nearest
from flyweight.tasks.decoding.scale import original_boxes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Outcomes = NDArray[np.int8]

IOU_THRESHOLD = 0.5
THRESHOLDS: Floats = 1 - np.arange(1, 1001) / 1000
LEAST_HEIGHTS = (50, 30, 10)
"""Least height in pixels of the faces of each of `LEVELS`, if the published lists are not given.

These heights agree with the lists for 99.7, 99.3 and 98.0 % of the 39,708 validation faces."""
_WRONG, _RIGHT, _IGNORED = 0, 1, 2


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one level at `THRESHOLDS`, `(1000,)` float64 each."""

    precision: Floats
    recall: Floats

    @property
    def average_precision(self) -> float:
        """The area under the best precision at each recall or a higher one."""
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(self.recall, prepend=0.0) * best).sum())


@dataclass(frozen=True)
class WiderImage:
    """Faces and detections of one image.

    Attributes:
        image_id: Position of the image in its set.
        faces: How many faces count at each of `LEVELS`, `(3,)`.
        scores: `(n,)`, descending.
        outcomes: `(n, 3)`, of `match_faces`.
    """

    image_id: int
    faces: Integers
    scores: Floats
    outcomes: Outcomes


def levels_by_height(boxes: Floats, ignored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each face counts at each of `LEVELS`, `(n, 3)`, by `LEAST_HEIGHTS`.

    Args:
        boxes: `(n, 4)` xyxy in pixels of the original image.
        ignored: `(n,)`, faces that never count (WIDER FACE's "invalid").
    """
    heights = boxes[:, 3] - boxes[:, 1]
    # Boxes were converted to float32 and resized, which can make them slightly smaller.
    counts: NDArray[np.bool_] = heights[:, None] >= np.array(LEAST_HEIGHTS) - 1e-3
    return counts & ~ignored[:, None]


def match_faces(boxes: Floats, faces: Floats, counts: NDArray[np.bool_]) -> Outcomes:
    """Return the outcome of each detection of an image at each level, `(n, 3)`.

    Args:
        boxes: `(n, 4)` detections, xyxy, by descending score.
        faces: `(m, 4)` xyxy.
        counts: `(m, 3)`, whether each face counts at each level.
    """
    outcomes = np.full((len(boxes), len(LEVELS)), _IGNORED, dtype=np.int8)
    if not len(faces) or not len(boxes):
        return outcomes
    overlaps = _overlaps(boxes, faces)
    best = overlaps.argmax(axis=1)
    matched = overlaps[np.arange(len(boxes)), best] >= IOU_THRESHOLD
    outcomes[~matched] = _WRONG
    rows = np.flatnonzero(matched)
    _, position = np.unique(best[rows], return_index=True)
    first = np.zeros(len(rows), dtype=np.bool_)
    first[position] = True
    counted = counts[best[rows]]
    outcomes[rows] = np.where(counted, np.where(first[:, None], _RIGHT, _WRONG), _IGNORED)
    return outcomes


def _overlaps(boxes: Floats, faces: Floats) -> Floats:
    low = np.maximum(boxes[:, None, :2], faces[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], faces[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    areas = [(side[:, 2:] - side[:, :2] + 1).prod(axis=1) for side in (boxes, faces)]
    union = areas[0][:, None] + areas[1][None] - shared
    # The published lists have a face of negative width: no box overlaps it.
    ious: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return ious


def precision_recall(scores: Floats, outcomes: Outcomes, num_faces: int) -> Curve:
    """Return the curve of one level.

    Args:
        scores: `(n,)`, already mapped to 0..1.
        outcomes: `(n,)`.
        num_faces: Faces that count at the level, at least one.
    """
    order = np.argsort(scores, kind="stable")
    # The number of detections below each threshold.
    below = np.searchsorted(scores[order], THRESHOLDS, side="left")
    right, counted = (
        np.append(flags[order][::-1].cumsum()[::-1], 0)[below]
        for flags in (outcomes == _RIGHT, outcomes != _IGNORED)
    )
    precision = np.divide(right, counted, out=np.zeros(len(THRESHOLDS)), where=counted > 0)
    return Curve(precision, right / num_faces)


def scaled_scores(scores: Floats) -> Floats:
    """Return scores mapped linearly to 0..1 by the lowest and highest of them, as the tools do.

    The lowest counts as at most 1 and the highest as at least 0. Equal scores, for which the
    published tools have no result, become 1.
    """
    if not len(scores):
        return scores
    low, high = min(1.0, scores.min()), max(0.0, scores.max())
    if high <= low:
        return np.ones_like(scores)
    whole: Floats = (scores - low) / (high - low)
    return whole


class WiderAp:
    """Average precision of WIDER FACE; a `Metric`.

    Numbers: `wider_easy`, `wider_medium` and `wider_hard`; a level without faces is left out,
    except hard, which is 0 then.

    Args:
        truth: The published ground truth; images are found in it by event and name. Without it,
            the faces of the batches count, at the levels of `levels_by_height`.
    """

    def __init__(self, truth: Sequence[ImageTruth] | None = None) -> None:
        self._truth = None if truth is None else {(t.event, t.image): t for t in truth}
        self._found: list[WiderImage] = []

    def update(self, predictions: Sequence[BoxPrediction], batch: Batch) -> None:
        """Match the predictions with the faces of their images."""
        for prediction, target in zip(predictions, batch.targets, strict=True):
            if self._truth is not None:
                found = truth_of(target.path, self._truth)
                faces, counts = found.boxes, found.counts
            else:
                faces = original_boxes(target)
                ignored = (target.difficult | target.crowd).numpy(force=True)
                counts = levels_by_height(faces, ignored)
            boxes = prediction.boxes.numpy(force=True).astype(np.float64)
            scores = prediction.scores.numpy(force=True).astype(np.float64)
            self.add(boxes, scores, faces, counts, image_id=target.image_id)

    def add(
        self,
        boxes: Floats,
        scores: Floats,
        faces: Floats,
        counts: NDArray[np.bool_],
        *,
        image_id: int = 0,
    ) -> None:
        """Match the detections of one image with its faces, all xyxy."""
        order = np.argsort(-scores, kind="stable")
        outcomes = match_faces(boxes[order], faces, counts)
        self._found.append(WiderImage(image_id, counts.sum(axis=0), scores[order], outcomes))

    @property
    def images(self) -> tuple[WiderImage, ...]:
        """What was kept of every image."""
        return tuple(self._found)

    def curves(self) -> dict[str, Curve]:
        """Return the curve of every level that has faces."""
        none = np.zeros((0, len(LEVELS)), dtype=np.int8)
        scores = scaled_scores(np.concatenate([np.zeros(0), *(one.scores for one in self._found)]))
        outcomes = np.concatenate([none, *(one.outcomes for one in self._found)])
        faces = sum((one.faces for one in self._found), np.zeros(len(LEVELS), dtype=np.int64))
        return {
            level: precision_recall(scores, outcomes[:, column], int(faces[column]))
            for column, level in enumerate(LEVELS)
            if faces[column]
        }

    def compute(self) -> dict[str, float]:
        """Return the average precision of every level that has faces."""
        found = {f"wider_{level}": c.average_precision for level, c in self.curves().items()}
        return {"wider_hard": 0.0} | found

    def state(self) -> list[dict[str, Any]]:
        """Return the arrays of every image."""
        return [dict(vars(image)) for image in self._found]

    def merge(self, state: list[dict[str, Any]]) -> None:
        """Add the images of another metric."""
        self._found.extend(WiderImage(**image) for image in state)


def truth_of(path: Path, truth: Mapping[tuple[str, str], ImageTruth]) -> ImageTruth:
    """Return the ground truth of the image at `path`.

    Raises:
        DataError: There is none.
    """
    key = (event_of(path), path.stem)
    if key not in truth:
        known = [f"{event}/{image}" for event, image in truth]
        raise DataError(
            "An image must be in the ground truth it is evaluated with. Received "
            f"'{key[0]}/{key[1]}', which is not. {nearest('/'.join(key), known)}"
        )
    return truth[key]


def make_wider_ap(labels: Sequence[str], config: DetectConfig) -> WiderAp:
    """Return the metric that a detector's settings name `wider`."""
    truth = config.ground_truth
    return WiderAp(None if truth is None else read_truth(truth))
