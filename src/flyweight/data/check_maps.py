"""Check of label images: they exist, decode, have the size of their image and known values."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from flyweight.data.layouts.map_files import (
    read_map,
    unknown_message,
    unknown_values,
    values_in,
)
from flyweight.data.problem_kinds import KindName
from flyweight.data.records import MapRecord, MapSet, Problem
from flyweight.errors import DataError
from flyweight.untrusted.file_bytes import is_file

_THREADS = 8
_REMEDY = "Restore it or take the image out of the list."


@dataclass(frozen=True)
class CheckedMap:
    """Result of the check of a label image.

    Attributes:
        problems: The problems.
        values: The pixel values that occur in it; None if they are unknown.
    """

    problems: tuple[Problem, ...] = ()
    values: frozenset[int] | None = None


def inspect_maps(images: MapSet, sizes: list[tuple[int, int] | None]) -> Iterator[CheckedMap]:
    """Yield problems and values of the labels of each image. All label images are decoded.

    Args:
        images: The split.
        sizes: Height and width of every image, None for an unreadable image.
    """
    find = partial(_inspect, images)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(find, images.records, sizes)


def _inspect(images: MapSet, record: MapRecord, size: tuple[int, int] | None) -> CheckedMap:
    path = record.map_path
    if path is None:
        return CheckedMap()
    if not is_file(path):
        message = f"labels that '{record.annotation.name}' names must exist. {_REMEDY}"
        return _bad(record, message, "missing_label_image")
    try:
        values = read_map(path)
    except DataError as error:
        return _bad(record, _reason(error), "undecodable_labels")
    found: list[Problem] = []
    if size is not None and values.shape != size:
        name = record.path.name if record.path is not None else "the image"
        message = (
            f"labels must be as large as their image. Received width {values.shape[1]}, height "
            f"{values.shape[0]} for '{name}' of width {size[1]}, height {size[0]}. "
            "Save them at the image's upright size."
        )
        found.append(Problem(path, None, message, record, kind="label_size"))
    present = values_in(values)
    unknown = unknown_values(present, len(images.labels), images.values)
    if unknown:
        message = unknown_message(unknown, len(images.labels), images.values)
        found.append(Problem(path, None, message, record, kind="unknown_label"))
    return CheckedMap(tuple(found), frozenset(present))


def _bad(record: MapRecord, message: str, kind: KindName) -> CheckedMap:
    path = record.map_path or record.annotation
    return CheckedMap((Problem(path, None, message, record, kind=kind),))


def _reason(error: DataError) -> str:
    """Return the error message in lower case at its start, because the path is put before it."""
    message = str(error)
    return message[:1].lower() + message[1:]
