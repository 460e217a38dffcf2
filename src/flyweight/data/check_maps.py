"""Check of label images: they exist, decode, have the size of their image and known values."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from flyweight.data.layouts.map_files import read_map, unknown_message, unknown_values
from flyweight.data.records import MapRecord, MapSet, Problem
from flyweight.errors import DataError

_THREADS = 8
_REMEDY = "Restore it or take the image out of the list."


def map_problems(
    images: MapSet, sizes: list[tuple[int, int] | None]
) -> Iterator[tuple[Problem, ...]]:
    """Yield the problems of the labels of each image. All label images are decoded.

    Args:
        images: The split.
        sizes: Height and width of every image, None for an unreadable image.
    """
    find = partial(_problems, images)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(find, images.records, sizes)


def _problems(
    images: MapSet, record: MapRecord, size: tuple[int, int] | None
) -> tuple[Problem, ...]:
    path = record.map_path
    if path is None:
        return ()
    if not path.is_file():
        message = f"labels that '{record.annotation.name}' names must exist. {_REMEDY}"
        return (Problem(path, None, message, record),)
    try:
        values = read_map(path)
    except DataError as error:
        return (Problem(path, None, _reason(error), record),)
    found = []
    if size is not None and values.shape != size:
        name = record.path.name if record.path is not None else "the image"
        message = (
            f"labels must be as large as their image. Received width {values.shape[1]}, height "
            f"{values.shape[0]} for '{name}' of width {size[1]}, height {size[0]}. "
            "Save them at the image's upright size."
        )
        found.append(Problem(path, None, message, record))
    unknown = unknown_values(values, len(images.labels), images.values)
    if unknown:
        message = unknown_message(unknown, len(images.labels), images.values)
        found.append(Problem(path, None, message, record))
    return tuple(found)


def _reason(error: DataError) -> str:
    """Return the error message in lower case at its start, because the path is put before it."""
    message = str(error)
    return message[:1].lower() + message[1:]
