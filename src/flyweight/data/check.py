"""Data check: a list of all bad images and annotations with their places, before training."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from flyweight.data.check_maps import map_problems
from flyweight.data.images import DECODER_ERRORS, image_size, read_image
from flyweight.data.records import (
    BoxRecord,
    BoxSet,
    ClassRecord,
    Flags,
    ImageSet,
    MapRecord,
    MapSet,
    Problem,
)
from flyweight.errors import DataError
from flyweight.files import write_text

# VOC counts pixels from 1, and tools disagree whether a box ends on or after its last pixel. So a
# box may exceed its image by one pixel; loading clips it.
_TOLERANCE = 1.0
_ANNOTATIONS: Mapping[type, str] = {
    BoxRecord: "box",
    ClassRecord: "class",
    MapRecord: "label image",
}
_TAIL_BYTES = 4096
_THREADS = 8


def check(images: ImageSet, *, decode: bool = False) -> tuple[Problem, ...]:
    """Return all problems of one split, in the order of its files.

    Of each image, the header and the end mark are read. Images without an end mark are decoded.

    Args:
        images: The split.
        decode: Decode every image to the last pixel.
    """
    problems = list(images.problems)
    if not images.records:
        message = (
            "a split must have at least one usable image. Received none. "
            "Check the list and the problems named with it."
        )
        problems.append(Problem(_source(images), None, message))
    problems.extend(_repeated_images(images))
    with ThreadPoolExecutor(_THREADS) as pool:
        inspected = list(pool.map(partial(_inspect, decode=decode), images.records))
    for image, found in zip(inspected, _annotation_problems(images, inspected), strict=True):
        problems.extend([*image.problems, *found])
    return tuple(problems)


def _annotation_problems(
    images: ImageSet, inspected: "Sequence[_ImageFile]"
) -> Iterator[Iterable[Problem]]:
    """Return an iterator over the problems of the annotations of each image."""
    if isinstance(images, MapSet):
        return map_problems(images, [image.size for image in inspected])
    if isinstance(images, BoxSet):
        pairs = zip(images.records, inspected, strict=True)
        return (_box_problems(record, image.size, images.labels) for record, image in pairs)
    # Readers of classes leave invalid entries out and report them themselves.
    return iter([() for _ in inspected])


def check_apart(train: ImageSet, val: ImageSet, *, contents: bool = False) -> tuple[Problem, ...]:
    """Return problems between two splits: common images, and different classes.

    Args:
        train: The training split.
        val: The validation split.
        contents: Also compare the bytes of the files, which finds copies under other names.
    """
    problems: list[Problem] = []
    if train.labels != val.labels:
        message = (
            "training and validation must have the same classes in the same order. "
            f"Received {_short(train.labels)} and {_short(val.labels)}. Give `labels`."
        )
        problems.append(Problem(_source(val), None, message))
    known = {path.resolve(): path for path in _paths(train)}
    copies = _by_digest(_paths(train)) if contents else {}
    digests = _digests(_paths(val)) if contents else {}
    for record in val.records:
        path = record.path
        if path is None:
            continue
        twin = known.get(path.resolve()) or copies.get(digests.get(path, b""))
        if twin is not None:
            message = (
                "an image must not be in both training and validation. "
                f"Received it in training as '{twin}'. Take it out of one list."
            )
            problems.append(Problem(path, None, message, record))
    return tuple(problems)


def require_sound(
    train: ImageSet,
    val: ImageSet | None = None,
    *,
    decode: bool = False,
    list_to: Path | None = None,
) -> None:
    """Check splits, and raise an error if there are problems.

    Args:
        train: A split.
        val: Another split, which is checked by itself and against the first.
        decode: Decode every image, and find copies of images by their bytes.
        list_to: File for the whole list, one problem per line; written only if there are problems.

    Raises:
        DataError: There are problems. The message has their number, the first one and the list.
    """
    problems = list(check(train, decode=decode))
    if val is not None:
        problems += [*check(val, decode=decode), *check_apart(train, val, contents=decode)]
    if problems:
        refuse(problems, list_to)


def refuse(problems: Sequence[Problem], list_to: Path | None) -> NoReturn:
    """Raise an error with the number of problems and the first one.

    Args:
        problems: At least one problem.
        list_to: File for the whole list, one problem per line.

    Raises:
        DataError: Always.
    """
    where = "List them all with flyweight.data.check.check."
    if list_to is not None:
        write_text(list_to, "".join(f"{problem}\n" for problem in problems))
        where = f"All are listed in '{list_to}'."
    files = len({problem.path for problem in problems})
    kinds = {type(problem.record) for problem in problems}
    what = next((noun for kind, noun in _ANNOTATIONS.items() if kind in kinds), "annotation")
    raise DataError(
        f"Every image and {what} must be usable. Received {len(problems)} problem"
        f"{'s' if len(problems) > 1 else ''} in {files} file{'s' if files > 1 else ''}, "
        f"first: {problems[0]} {where}"
    )


@dataclass(frozen=True)
class _ImageFile:
    """Result of the check of an image file: its upright size, or None if it is unreadable."""

    size: tuple[int, int] | None
    problems: tuple[Problem, ...] = ()


def _inspect(record: Any, *, decode: bool) -> _ImageFile:
    declared = (record.height, record.width)
    if record.path is None:
        return _ImageFile(declared)
    path = record.path
    try:
        if not path.is_file():
            return _ImageFile(None, (Problem(path, None, _missing(record), record),))
        size = image_size(path)
        mismatch = 0 not in declared and size != declared
        if decode or mismatch or not _ends_well(path):
            height, width = read_image(path).shape[-2:]
            size = (int(height), int(width))
    except DataError as error:
        return _ImageFile(None, (Problem(path, None, _reason(error), record),))
    except DECODER_ERRORS as error:
        message = f"{_DECODES} Received: {error}. {_REMEDY}"
        return _ImageFile(None, (Problem(path, None, message, record),))
    if 0 not in declared and size != declared:
        message = _size_message(record, size)
        return _ImageFile(size, (Problem(record.annotation, None, message, record),))
    return _ImageFile(size)


_DECODES = "an image must decode to the last pixel."
_REMEDY = "Restore it or take it out of the list."


def _missing(record: Any) -> str:
    return (
        f"an image that '{record.annotation.name}' describes must exist. Received no such file. "
        f"{_REMEDY}"
    )


def _reason(error: DataError) -> str:
    cause = error.__cause__
    detail = " ".join(str(cause).split()) or type(cause).__name__
    return f"{_DECODES} Received: {detail}. {_REMEDY}"


def _size_message(record: Any, size: tuple[int, int]) -> str:
    height, width = size
    turned = (record.height, record.width) == (width, height)
    hint = " (sideways: its EXIF tag turns it)" if turned else ""
    name = record.path.name if record.path is not None else ""
    return (
        f"the size must be that of the image. Received width {record.width}, height "
        f"{record.height} for '{name}' of width {width}, height {height}{hint}. "
        "Correct the size and the boxes."
    )


def _ends_well(path: Path) -> bool:
    """Return whether a JPEG or PNG file has its end mark; True for other formats."""
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    if start.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in tail
    if start.startswith(b"\x89PNG"):
        return b"IEND" in tail
    return True


def _box_problems(
    record: BoxRecord, size: tuple[int, int] | None, labels: Sequence[str]
) -> Iterator[Problem]:
    if not len(record.boxes):
        return
    declared = (record.height, record.width)
    height, width = declared if 0 not in declared else size or (0, 0)
    with np.errstate(invalid="ignore"):  # NaN is one of the faults.
        faults = tuple(_faults(record, height, width))
    found: set[int] = set()
    for bad, rule, remedy in faults:
        for box in np.flatnonzero(bad).tolist():
            if box in found:
                continue
            found.add(box)
            corners = ", ".join(f"{value:g}" for value in record.boxes[box].tolist())
            name = labels[int(record.labels[box])]
            yield record.problem(box, f"{rule} Received '{name}' at {corners}. {remedy}")


def _faults(record: BoxRecord, height: int, width: int) -> Iterator[tuple[Flags, str, str]]:
    """Yield (boxes that break the rule, rule, remedy), the most serious rule first."""
    boxes = record.boxes
    low, high = boxes[:, :2], boxes[:, 2:]
    remove = "Correct or remove it."
    yield _any(~np.isfinite(boxes)), "a box must have finite corners.", remove
    yield _any(high <= low), "a box must have width and height above 0.", remove
    if height and width:
        limit = np.array([width, height], dtype=np.float32) + _TOLERANCE
        outside = _any((low < -_TOLERANCE) | (high > limit))
        yield outside, f"a box must lie in its image of {width}x{height}.", "Clip or remove it."
    yield _repeats(record), "a box must be given once.", "Remove the copy."


def _any(flags: Flags) -> Flags:
    """Return whether any flag of each row is set."""
    found: Flags = np.logical_or.reduce(flags, axis=1)
    return found


def _repeats(record: BoxRecord) -> Flags:
    """Return which boxes are equal to an earlier box of the same class."""
    repeated = np.zeros(len(record.boxes), dtype=np.bool_)
    seen: set[tuple[float, ...]] = set()
    for row, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels, strict=True)):
        entry = (*box, float(label))
        repeated[row] = entry in seen
        seen.add(entry)
    return repeated


def _repeated_images(images: ImageSet) -> Iterator[Problem]:
    seen: set[Path] = set()
    for record in images.records:
        if record.path in seen:
            remedy = f"Remove the copy from '{_source(images)}'."
            message = f"an image must be listed once. Received it again. {remedy}"
            yield Problem(record.path, None, message, record)
        elif record.path is not None:
            seen.add(record.path)


def _paths(images: ImageSet) -> list[Path]:
    return [record.path for record in images.records if record.path is not None]


def _source(images: ImageSet) -> Path:
    return images.source if images.source is not None else Path(images.name)


def _short(labels: Sequence[str]) -> str:
    return f"{len(labels)} ({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''})"


def _digests(paths: Sequence[Path]) -> dict[Path, bytes]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(paths, pool.map(_digest, paths), strict=True))


def _by_digest(paths: Sequence[Path]) -> dict[bytes, Path]:
    return {digest: path for path, digest in _digests(paths).items() if digest}


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""  # Missing files have been reported.
