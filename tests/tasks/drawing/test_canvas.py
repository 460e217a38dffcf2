import numpy as np
import pytest
from PIL import Image, ImageOps

from flyweight.errors import DataError
from flyweight.tasks.drawing.canvas import drawn_on

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_an_image_comes_back_as_what_it_was():
    before = PIXELS.copy()
    drawn = drawn_on(PIXELS, ImageOps.invert)
    assert isinstance(drawn, np.ndarray)
    assert np.array_equal(drawn, 255 - PIXELS)
    assert np.array_equal(PIXELS, before)
    assert drawn.flags.writeable
    image = drawn_on(Image.fromarray(PIXELS), ImageOps.invert)
    assert isinstance(image, Image.Image)
    assert np.array_equal(np.asarray(image), drawn)


@pytest.mark.parametrize(
    "image",
    [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS.transpose(2, 0, 1), PIXELS[:0]],
    ids=["grey", "float", "channels first", "empty"],
)
def test_arrays_of_another_shape_or_type_are_refused(image):
    with pytest.raises(DataError, match=r"\(height, width, 3\).*Received shape") as caught:
        drawn_on(image, ImageOps.invert)
    assert "\n" not in str(caught.value)
