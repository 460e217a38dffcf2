"""Check of image files: they exist, can be read, and have the size that their annotation has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.data.images import DECODER_ERRORS, Header, read_header, read_image
from flyweight.data.problem_kinds import KindName
from flyweight.data.records import Problem
from flyweight.errors import DataError
from flyweight.untrusted.file_bytes import is_file, open_file

_TAIL_BYTES = 4096
_DECODES = "an image must decode to the last pixel."
_REMEDY = "Restore it or take it out of the list."


@dataclass(frozen=True)
class ImageFile:
    """Result of the check of an image file.

    Attributes:
        size: Height and width of the upright image; None if it is unreadable.
        problems: The problems.
    """

    size: tuple[int, int] | None
    problems: tuple[Problem, ...] = ()


def inspect_image(record: Any, *, decode: bool) -> ImageFile:
    """Return size and problems of the image of a record.

    Header and end mark are read. The image is decoded if its format has no end mark, if the mark is
    missing, or if the size is another one than that of the annotation.

    Args:
        record: A record of an `ImageSet`.
        decode: Decode the image in any case.
    """
    if record.path is None:
        return ImageFile((record.height, record.width))
    path = record.path
    try:
        if not is_file(path):
            problem = Problem(path, None, _missing(record), record, kind="missing_image")
            return ImageFile(None, (problem,))
        header = read_header(path)
        if header.unsupported:
            message = f"pixels must have 8 or 16 bits. Received {header.unsupported}. {_SAVE}"
            problem = Problem(path, None, message, record, kind="unsupported_pixels")
            return ImageFile(header.size, (problem,))
        size = header.size
        if decode or not _agrees(record, size) or not _is_whole(path):
            height, width = read_image(path).shape[-2:]
            size = (int(height), int(width))
    except DataError as error:
        return ImageFile(None, (_undecodable(record, _reason(error)),))
    except DECODER_ERRORS as error:
        return ImageFile(None, (_undecodable(record, str(error)),))
    if not _agrees(record, size):
        return ImageFile(size, (_size_problem(record, size, header),))
    return ImageFile(size)


_SAVE = "Save the image with 8 bits per channel."


def _agrees(record: Any, size: tuple[int, int]) -> bool:
    declared = (record.height, record.width)
    return 0 in declared or size == declared


def _missing(record: Any) -> str:
    return (
        f"an image that '{record.annotation.name}' describes must exist. Received no such file. "
        f"{_REMEDY}"
    )


def _undecodable(record: Any, reason: str) -> Problem:
    message = f"{_DECODES} Received: {reason}. {_REMEDY}"
    return Problem(record.path, None, message, record, kind="undecodable_image")


def _reason(error: DataError) -> str:
    cause = error.__cause__
    return " ".join(str(cause).split()) or type(cause).__name__


def _size_problem(record: Any, size: tuple[int, int], header: Header) -> Problem:
    height, width = size
    exchanged = (record.height, record.width) == (width, height)
    hint = ""
    if exchanged:
        turned = "sideways: its EXIF tag turns it" if header.sideways else "the sides are exchanged"
        hint = f" ({turned})"
    message = (
        f"the size must be that of the image. Received width {record.width}, height "
        f"{record.height} for '{record.path.name}' of width {width}, height {height}{hint}. "
        "Correct the size and the boxes."
    )
    kind: KindName = "exchanged_sides" if exchanged else "image_size"
    return Problem(record.annotation, None, message, record, kind=kind)


def _is_whole(path: Path) -> bool:
    """Return whether a JPEG, PNG or WebP file has its end; False for other formats."""
    length = path.stat().st_size
    with open_file(path) as file:
        start = file.read(12)
        file.seek(max(0, length - _TAIL_BYTES))
        tail = file.read()
    if start.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in tail
    if start.startswith(b"\x89PNG"):
        return b"IEND" in tail
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return length >= 8 + int.from_bytes(start[4:8], "little")
    return False
