"""Images of a run folder as data URIs. Only PNG and JPEG files inside the folder are read."""

import base64
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flyweight.errors import FileError
from flyweight.report.rows import ReportImage
from flyweight.untrusted.encoded_images import opened_image
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import MOST_IMAGE_BYTES, read_bytes

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as the page holds it.

    Attributes:
        image: Its title, stage and caption.
        uri: The bytes of the file as a data URI.
        width: Width in pixels.
        height: Height in pixels.
    """

    image: ReportImage
    uri: str
    width: int
    height: int


def embed(image: ReportImage, folder: Path) -> EmbeddedImage:
    """Return the file of `image` under `folder` as a data URI, its bytes unchanged.

    Raises:
        FileError: The path leaves the folder, or the file is missing or neither PNG nor JPEG.
    """
    must = "An image of a report must be a readable PNG or JPEG."
    remedy = "Restore the file, or remove it from report.json."
    with refusing(FileError, must, f"'{folder / image.path}'", remedy):
        path = _inside(image.path, folder)
        data = read_bytes(path, MOST_IMAGE_BYTES)
        with opened_image(data, tuple(_MEDIA_TYPES)) as opened:
            kind, (width, height) = str(opened.format), opened.size
    uri = f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(data).decode('ascii')}"
    return EmbeddedImage(image, uri, width, height)


def _inside(path: str, folder: Path) -> Path:
    relative = PurePosixPath(path)
    full = folder / relative
    if relative.is_absolute() or not full.resolve().is_relative_to(folder.resolve()):
        raise FileError(
            f"An image of a report must be in its run folder. Received: '{path}'. "
            f"Where: {folder / 'report.json'}. Copy the file there and use the relative path."
        )
    return full
