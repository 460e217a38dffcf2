import io

import pytest
from PIL import Image

from flyweight.untrusted.encoded_images import KNOWN_FORMATS, MOST_PIXELS, opened_image
from flyweight.untrusted.failures import LimitError


def encoded(kind, size=(4, 3)):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_known_formats(kind):
    with opened_image(encoded(kind)) as image:
        assert image.size == (4, 3)
    assert kind in KNOWN_FORMATS


@pytest.mark.parametrize("kind", ["EPS", "DDS", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_tried(kind):
    with pytest.raises(OSError, match="cannot identify"), opened_image(encoded(kind)):
        pass


def test_pixels_are_bounded_before_they_are_decoded():
    data = bytearray(encoded("BMP"))
    data[18:26] = (12_000).to_bytes(4, "little") + (12_000).to_bytes(4, "little")
    assert MOST_PIXELS < 12_000**2
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(LimitError, match="12000 x 12000 pixels"),
        opened_image(bytes(data)),
    ):
        pass
