"""Mean average precision of COCO on resampled images.

Detections are matched within images, so they are matched once, by faster-coco-eval at each IoU; a
resample only counts the images of its matches differently. A repeated image is counted by a weight:
its copies stand side by side in the order of scores, and neither the recall that a threshold
reaches nor the best precision from there on depends on what lies between the copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from flyweight.tasks.metrics.coco_ap import CocoImage, detection_table, object_table

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_RECALLS: Floats = np.linspace(0, 1, 101)
_IOUS: Floats = np.linspace(0.5, 0.95, 10)
_ALL_SIZES = [[0, 1e10]]
_DETECTIONS = 100  # COCO counts so many of a class in an image.
_MOST_WORK = 1_000_000_000
_FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class _Matches:
    """The detections of one class by descending score; equal scores are ordered by image.

    Attributes:
        images: Position of each detection's image, `(n,)`.
        right: Whether each is right at each IoU, `(ious, n)`.
        wrong: Whether each is wrong; those in ignored regions are neither.
        objects: How many objects of the class each image has to be found, `(images,)`.
    """

    images: Integers
    right: Flags
    wrong: Flags
    objects: Integers


def resampled_coco(
    images: Sequence[CocoImage],
    num_classes: int,
    draws: Integers,
    compare: Literal["bbox", "segm"] = "bbox",
) -> Floats:
    """Return `map` on resamples, `(resamples,)`: all of `draws`, or fewer of them for a large set.

    Args:
        images: Every image of the set once; `image_id` is the position in it.
        num_classes: Classes without background.
        draws: How often each resample contains each image, `(resamples, images)`.
        compare: Boxes or masks.
    """
    matches = _matched(sorted(images, key=lambda one: one.image_id), num_classes, compare)
    taken = draws[: affordable_resamples(sum(len(one.images) for one in matches), num_classes)]
    sums, defined = np.zeros(len(taken)), np.zeros(len(taken))
    for one in matches:
        objects = taken @ one.objects
        for resample in np.flatnonzero(objects):
            weights = taken[resample][one.images]
            sums[resample] += _average_precision(one, weights, int(objects[resample]))
        defined += objects > 0
    means: Floats = sums / np.maximum(defined, 1)
    return means


def affordable_resamples(detections: int, num_classes: int) -> int:
    """Return how many resamples take about half a minute, at least 100.

    Example:
        >>> affordable_resamples(20_000, 80), affordable_resamples(500_000, 80)
        (2777, 193)
    """
    return max(_FEWEST_RESAMPLES, _MOST_WORK // (10 * detections + 2000 * num_classes))


def _average_precision(matches: _Matches, weights: Integers, objects: int) -> float:
    """Return the mean over IoU and recall of the best precision, as COCO's code interpolates it."""
    hits = (matches.right * weights).cumsum(axis=1)
    misses = (matches.wrong * weights).cumsum(axis=1)
    precision = hits / (hits + misses + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / objects
    found = 0.0
    for reached, heights in zip(recall, best, strict=True):
        first = np.searchsorted(reached, _RECALLS)
        found += heights[first[first < len(heights)]].sum()
    return float(found / (len(_RECALLS) * len(recall)))


def _matched(
    images: Sequence[CocoImage], num_classes: int, compare: Literal["bbox", "segm"]
) -> list[_Matches]:
    """Match the detections of every class with its objects."""
    truth = COCO(object_table(images, num_classes))
    results = truth.loadRes(detection_table(images, masks=compare == "segm"))
    right, wrong = _outcomes(truth, results, compare)
    last = max((image.image_id for image in images), default=-1)
    objects = np.zeros((last + 1, num_classes), dtype=np.int64)
    for image in images:
        wanted = image.object_labels[~image.ignored]
        objects[image.image_id] = np.bincount(wanted, minlength=num_classes)
    none = np.zeros(0)
    owners = np.concatenate([none, *(np.full(len(one.boxes), one.image_id) for one in images)])
    labels = np.concatenate([none, *(one.labels for one in images)])
    scores = np.concatenate([none, *(one.scores for one in images)])
    found = []
    for label in range(num_classes):
        mine = np.flatnonzero(labels == label)
        mine = mine[_first_of_each(owners[mine], scores[mine])]
        columns = owners[mine].astype(np.int64), right[:, mine], wrong[:, mine]
        found.append(_Matches(*columns, objects[:, label]))
    return found


def _outcomes(truth: COCO, results: COCO, compare: Literal["bbox", "segm"]) -> tuple[Flags, Flags]:
    """Return whether each detection is right and whether it is wrong, `(ious, n)` each."""
    right = np.zeros((len(_IOUS), len(results.anns)), dtype=np.bool_)
    wrong = np.ones_like(right)
    for row, iou in enumerate(_IOUS):
        evaluation = COCOeval_faster(truth, results, compare)
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = _ALL_SIZES, ["all"]
        evaluation.params.maxDets = [_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
        for pair in evaluation.eval["matched"]:
            detection, met = map(int, pair.split("_"))
            wrong[row, detection - 1] = False  # Ids begin with 1.
            right[row, detection - 1] = not truth.anns[met]["iscrowd"]
    return right, wrong


def _first_of_each(owners: Floats, scores: Floats) -> Integers:
    """Return by descending score the positions of the detections of each image that count."""
    order = np.lexsort((owners, -scores))
    by_image = order[np.argsort(owners[order], kind="stable")]
    starts = np.searchsorted(owners[by_image], owners[by_image], side="left")
    counted = np.zeros(len(order), dtype=np.bool_)
    counted[by_image] = np.arange(len(order)) - starts < _DETECTIONS
    return order[counted[order]]
