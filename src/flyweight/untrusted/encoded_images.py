"""Images from outside: known formats alone, and no more pixels than a bound."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from PIL import Image

from flyweight.untrusted.failures import LimitError

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
"""Formats that are read, by Pillow's names. Pillow has decoders of many more: one of them starts
another program, and most of the others nobody has tried on damaged files."""
MOST_PIXELS = 2**27
"""Pixels of one image: 11,585 by 11,585."""

for _plugin in ("Jpeg", "Png", "Bmp", "WebP", "Tiff", "Gif", "Ppm", "Avif", "Jpeg2K"):
    # Pillow loads all of its forty plugins to look for a format that none of these is.
    with suppress(ImportError):  # Older versions have no AVIF.
        import_module(f"PIL.{_plugin}ImagePlugin")
KNOWN_FORMATS = tuple(name for name in FORMATS if name in Image.OPEN)
"""Those of `FORMATS` that the installed Pillow has."""


@contextmanager
def opened_image(data: bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Yield an image whose header is read and whose pixels are not decoded yet.

    Raises:
        LimitError: The image has more than `MOST_PIXELS`.
        Exception: Whatever Pillow raises for a damaged file; see `failures.refusing`.
    """
    with Image.open(io.BytesIO(data), formats=formats or KNOWN_FORMATS) as image:
        require_pixels(image)
        yield image


def require_pixels(image: Image.Image) -> None:
    """Check the size that the header of an image states, before its pixels are decoded.

    Raises:
        LimitError: It is more than `MOST_PIXELS`.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise LimitError(f"{width} x {height} pixels, where {MOST_PIXELS:,} are read")
