"""Scaling of boxes from the network's input to the original image."""

import numpy as np
from numpy.typing import NDArray

from flyweight.data.batch import BoxTarget


def original_boxes(target: BoxTarget) -> NDArray[np.float64]:
    """Return the boxes of the objects, `(n, 4)` float64 xyxy in pixels of the original image."""
    boxes: NDArray[np.float64] = target.boxes.numpy(force=True).astype(np.float64).reshape(-1, 4)
    boxes *= np.asarray(target.scale * 2)
    return boxes
