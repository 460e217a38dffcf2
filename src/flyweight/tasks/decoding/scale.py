"""From the pixels of the network's input to those of the image on disk."""

import numpy as np
from numpy.typing import NDArray

from flyweight.data.batch import BoxTarget


def original_boxes(target: BoxTarget) -> NDArray[np.float64]:
    """Return the objects' boxes, `(n, 4)` float64 xyxy in pixels of the image on disk."""
    boxes: NDArray[np.float64] = target.boxes.numpy(force=True).astype(np.float64).reshape(-1, 4)
    boxes *= np.asarray(target.scale * 2)
    return boxes
