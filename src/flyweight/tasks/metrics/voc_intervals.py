"""Intervals of metrics and of their differences, by resampling images.

Two networks that are evaluated on the same images share most of the random variation: an image that
is hard for one network is hard for the other. Every resample therefore draws one list of images,
with replacement, for both networks, and the interval is that of the difference (paired bootstrap;
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flyweight.data.records import BoxSet
from flyweight.tasks.metrics.voc_map import (
    Floats,
    Integers,
    Method,
    average_precision,
    counted_outcomes,
)

RESAMPLES = 1000
LEVEL = 0.95


def objects_per_image(images: BoxSet) -> Integers:
    """Return how many objects of each class each image has to be found, `(images, classes)`."""
    counts = np.zeros((len(images.records), len(images.labels)), dtype=np.int64)
    for row, record in zip(counts, images.records, strict=True):
        wanted = record.labels[~(record.difficult | record.crowd)]
        row += np.bincount(wanted, minlength=len(row))
    return counts


def draw_images(count: int, *, seed: int = 0) -> Integers:
    """Return how often each resample contains each of `count` images, `(RESAMPLES, count)`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, [1 / count] * count, size=RESAMPLES)


def resampled_map(
    state: Mapping[str, Any], objects: Integers, draws: Integers, method: Method
) -> Floats:
    """Return the mean average precision on every resample, `(resamples,)`.

    Args:
        state: `VocMap.state()` after all images.
        objects: Of `objects_per_image`.
        draws: Of `draw_images`; one row of ones gives the number of `VocMap.compute`.
        method: See `average_precision`.
    """
    totals = draws @ objects
    values = np.zeros(totals.shape)
    for label in range(objects.shape[1]):
        images, right = counted_outcomes(state, label)
        for resample in np.flatnonzero(totals[:, label]):
            outcomes = np.repeat(right, draws[resample][images])
            total = int(totals[resample, label])
            values[resample, label] = average_precision(outcomes, total, method)
    present = (totals > 0).sum(axis=1)
    means: Floats = values.sum(axis=1) / np.maximum(present, 1)
    return means


def difference_interval(before: Floats, after: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two networks, `after - before`.

    Args:
        before: The metric on every resample, with the same draws as
        after: the other network's. If one has fewer resamples, the others are left out.
    """
    tail, both = 50 * (1 - LEVEL), min(len(before), len(after))
    low, high = np.percentile(after[:both] - before[:both], [tail, 100 - tail])
    return float(low), float(high)
