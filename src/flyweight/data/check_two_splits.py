"""Check of two splits against each other: common images, and different classes."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flyweight.data.check_split import source_of
from flyweight.data.images import read_image
from flyweight.data.records import ImageSet, Problem
from flyweight.errors import DataError
from flyweight.untrusted.file_bytes import open_file

_THREADS = 8


def check_apart(train: ImageSet, val: ImageSet, *, decode: bool = False) -> tuple[Problem, ...]:
    """Return problems between two splits: common images, and different classes.

    Copies of an image under another name are found by the bytes of the files.

    Args:
        train: The training split.
        val: The validation split.
        decode: Also compare the pixels of all images, which finds copies in other file formats.
    """
    problems: list[Problem] = []
    if train.labels != val.labels:
        message = (
            "training and validation must have the same classes in the same order. "
            f"Received {_short(train.labels)} and {_short(val.labels)}. Give `labels`."
        )
        problems.append(Problem(source_of(val), None, message, kind="different_classes"))
    known = {path.resolve(): path for path in _paths(train)}
    copies = _copies(_paths(train), _paths(val), decode=decode)
    for record in val.records:
        path = record.path
        if path is not None and path.resolve() in known:
            problems.append(_shared(record, known[path.resolve()]))
        elif path in copies:
            problems.append(_copied(record, copies[path]))
    return tuple(problems)


_APART = "an image must not be in both training and validation."


def _shared(record: Any, twin: Path) -> Problem:
    message = f"{_APART} Received it in training as '{twin}'. Take it out of one list."
    return Problem(record.path, None, message, record, kind="shared_image")


def _copied(record: Any, twin: Path) -> Problem:
    message = f"{_APART} Received its content in training as '{twin}'. Remove one of the two."
    return Problem(record.path, None, message, record, kind="copied_image")


def _copies(train: Sequence[Path], val: Sequence[Path], *, decode: bool) -> dict[Path, Path]:
    """Return {path in validation: path in training with the same content}."""
    with ThreadPoolExecutor(_THREADS) as pool:
        lengths = [
            dict(zip(paths, pool.map(_length, paths), strict=True)) for paths in (train, val)
        ]
        # Only files of equal length can be equal, so few are read.
        common = (set(lengths[0].values()) & set(lengths[1].values())) - {None}
        first, second = ([p for p, length in part.items() if length in common] for part in lengths)
        found = _matching(pool, first, second, _digest)
        return {**_matching(pool, train, val, _pixels), **found} if decode else found


def _matching(
    pool: ThreadPoolExecutor,
    train: Sequence[Path],
    val: Sequence[Path],
    digest: Callable[[Path], bytes],
) -> dict[Path, Path]:
    known = {key: path for key, path in zip(pool.map(digest, train), train, strict=True) if key}
    pairs = zip(val, pool.map(digest, val), strict=True)
    return {path: known[key] for path, key in pairs if key in known}


def _paths(images: ImageSet) -> list[Path]:
    return [record.path for record in images.records if record.path is not None]


def _short(labels: Sequence[str]) -> str:
    return f"{len(labels)} ({', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''})"


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # Missing files have been reported.


def _digest(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _pixels(path: Path) -> bytes:
    try:
        pixels = read_image(path)
    except DataError:
        return b""
    found = hashlib.sha256(str(tuple(pixels.shape)).encode())
    found.update(pixels.numpy().data)
    return found.digest()
