"""Pictures of a run folder, safe to show: PNG or JPEG only, and from nowhere else."""

import base64
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flyweight.errors import FileError
from flyweight.report.rows import Picture

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class Embedded:
    """A picture as the page carries it.

    Attributes:
        picture: What it shows.
        uri: The file itself as a data URI.
        width: In pixels.
        height: In pixels.
    """

    picture: Picture
    uri: str
    width: int
    height: int


def embed(picture: Picture, folder: Path) -> Embedded:
    """Return the file of `picture` under `folder` as a data URI, its bytes unchanged.

    Raises:
        FileError: The path leaves the folder, or the file is missing, or neither PNG nor JPEG.
    """
    from PIL import Image

    path = _inside(picture.path, folder)
    try:
        with Image.open(path, formats=tuple(_MEDIA_TYPES)) as image:
            kind, (width, height) = str(image.format), image.size
        data = path.read_bytes()
    except (OSError, Image.DecompressionBombError) as error:
        raise FileError(
            f"A picture of a report must be a readable PNG or JPEG. Received: {error}. "
            f"Where: {path}. Restore it, or drop it from report.json."
        ) from error
    uri = f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(data).decode('ascii')}"
    return Embedded(picture, uri, width, height)


def _inside(path: str, folder: Path) -> Path:
    relative = PurePosixPath(path)
    full = folder / relative
    if relative.is_absolute() or not full.resolve().is_relative_to(folder.resolve()):
        raise FileError(
            f"A picture of a report must lie in its run folder. Received: '{path}'. "
            f"Where: {folder / 'report.json'}. Copy it there and name it relative to that."
        )
    return full
