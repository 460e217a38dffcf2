"""Main metric on resampled images, for the metrics that have a number or a matrix per image."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def resampled_mean(values: Floats, draws: Integers) -> Floats:
    """Return the mean on every resample, `(resamples,)`.

    Args:
        values: Of every image, `(images,)`: 1 for a right class, 0 for a wrong one.
        draws: How often each resample contains each image, `(resamples, images)`.

    Example:
        >>> resampled_mean(np.array([1.0, 0.0]), np.array([[1, 1], [2, 0]])).tolist()
        [0.5, 1.0]
    """
    means: Floats = draws @ values / draws.sum(axis=1)
    return means


def resampled_iou(matrices: Integers, draws: Integers) -> Floats:
    """Return the mean intersection over union on every resample, `(resamples,)`.

    Args:
        matrices: Confusion matrix of every image, `(images, classes, classes)`.
        draws: As for `resampled_mean`.
    """
    classes = matrices.shape[1]
    means = np.empty(len(draws))
    flat = matrices.reshape(len(matrices), -1).astype(np.float64)
    for index, total in enumerate(draws @ flat):
        matrix = total.reshape(classes, classes)
        hits = matrix.diagonal()
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
        present = union > 0
        means[index] = (hits[present] / union[present]).mean() if present.any() else 0.0
    return means


def interval_of(resampled: Floats) -> tuple[float, float]:
    """Return the 95 % interval of a metric from its values on resamples.

    Example:
        >>> interval_of(np.arange(1001) / 1000)
        (0.025, 0.975)
    """
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
