"""Canvas: images in memory that something is drawn on, as arrays or as Pillow's images."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from flyweight.errors import DataError

Pixels = npt.NDArray[np.uint8]
Drawable = TypeVar("Drawable", Image.Image, Pixels)
"""A Pillow image of any mode, or an array `(height, width, 3)` of RGB, uint8."""


def drawn_on(image: Drawable, draw: Callable[[Image.Image], Image.Image]) -> Drawable:
    """Return what `draw` makes of an image, as an image of the same kind; `image` stays as it is.

    Raises:
        DataError: An array of another shape or type.
    """
    if isinstance(image, Image.Image):
        return draw(image)
    return np.array(draw(Image.fromarray(rgb_pixels(image))))


def rgb_pixels(image: Pixels) -> Pixels:
    """Return an array that is an RGB image.

    Raises:
        DataError: It has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(
            "An image in memory must be an array (height, width, 3) of RGB values, uint8. Received "
            f"shape {image.shape}, {image.dtype}. Convert it first."
        )
    return image
