"""Between the pixels of the network's input and those of the picture on disk."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def original_scale(
    input_size: tuple[int, ...], original_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the factors that take xyxy in input pixels to pixels of the picture on disk.

    Sizes are height and width.

    Example:
        >>> original_scale((320, 320), (480, 640))
        (2.0, 1.5, 2.0, 1.5)
    """
    down, across = original_size[0] / input_size[0], original_size[1] / input_size[1]
    return across, down, across, down


def original_boxes(
    boxes: Tensor, input_size: tuple[int, ...], original_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return boxes `(n, 4)` of the input as float64 xyxy in pixels of the picture on disk."""
    scaled: NDArray[np.float64] = boxes.numpy(force=True).astype(np.float64).reshape(-1, 4)
    scaled *= np.asarray(original_scale(input_size, original_size))
    return scaled
