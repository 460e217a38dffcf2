"""Drawn images as files: an image is read, drawn on, and written to another file."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from flyweight.errors import DataError, FileError
from flyweight.files import replacing
from flyweight.untrusted.encoded_images import opened_image
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import MOST_IMAGE_BYTES, read_bytes


def draw_file(image: Path, save_to: Path, draw: Callable[[Image.Image], Image.Image]) -> None:
    """Save what `draw` makes of the image in a file, completely or not at all.

    Args:
        image: The file; the image is turned upright by its EXIF tag before it is drawn on.
        save_to: The new file; its ending chooses the format.
        draw: Returns the image to save.

    Raises:
        DataError: The image cannot be decoded.
        FileError: `save_to` has no ending of an image format, or cannot be written.
    """
    Image.init()
    known = Image.EXTENSION.get(save_to.suffix.lower())
    if known not in Image.SAVE:
        raise FileError(
            f"A drawn image must be saved as .png, .jpg or the like. Received: '{save_to}'. "
            "Give it such an ending."
        )
    remedy = "Check that it opens in a viewer."
    with refusing(DataError, "A file to draw on must be an image.", f"'{image}'", remedy):
        with opened_image(read_bytes(image, MOST_IMAGE_BYTES)) as opened:
            upright = ImageOps.exif_transpose(opened)
        upright.load()
    drawn = draw(upright)
    with replacing(save_to) as draft:
        drawn.save(draft, format=known, quality=92)
