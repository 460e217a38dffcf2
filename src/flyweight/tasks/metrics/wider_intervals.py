"""Average precision of WIDER FACE on resampled images.

Detections are matched within images; a resample repeats the matched detections of its images. Their
scores are scaled by the lowest and highest score of the resample, as the metric does with a set.
"""

from collections.abc import Sequence

import numpy as np

from flyweight.data.layouts.wider_truth import LEVELS
from flyweight.tasks.metrics.wider_ap import (
    Floats,
    Integers,
    WiderImage,
    precision_recall,
    scaled_scores,
)

_MOST_WORK = 200_000_000
_FEWEST_RESAMPLES = 100


def resampled_wider(
    images: Sequence[WiderImage], draws: Integers, level: str = LEVELS[-1]
) -> Floats:
    """Return the average precision of a level on resamples, `(resamples,)`.

    Of a large set there are fewer than `draws`, but at least 100: as many as take about half a
    minute.

    Args:
        images: Every image of the set once; `image_id` is the position in it.
        draws: How often each resample contains each image, `(resamples, images)`.
        level: One of `LEVELS`.
    """
    column = LEVELS.index(level)
    scores = np.concatenate([np.zeros(0), *(one.scores for one in images)])
    none = np.zeros(0, dtype=np.int8)
    outcomes = np.concatenate([none, *(one.outcomes[:, column] for one in images)])
    counts = [np.full(len(one.scores), one.image_id) for one in images]
    owners = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
    # Sorted once, so that sorting the repeated detections again costs next to nothing.
    order = np.argsort(scores, kind="stable")
    scores, outcomes, owners = scores[order], outcomes[order], owners[order]
    taken = draws[: max(_FEWEST_RESAMPLES, _MOST_WORK // max(1, len(scores)))]
    values = np.zeros(len(taken))
    for row, drawn in enumerate(taken):
        faces = sum(int(drawn[one.image_id] * one.faces[column]) for one in images)
        if faces:
            times = drawn[owners]
            repeated = scaled_scores(np.repeat(scores, times)), np.repeat(outcomes, times)
            values[row] = precision_recall(*repeated, faces).average_precision
    return values
