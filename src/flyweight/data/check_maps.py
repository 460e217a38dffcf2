"""The check of label images: there, whole, as large as their image, and of known values."""

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
    """Yield what is wrong with the labels of each image, all of which are decoded.

    Args:
        images: What to check.
        sizes: Height and width of every image, None where it could not be told.
    """
    look = partial(_problems, images)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(look, images.records, sizes)


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
    """Return the letter without the path, which stands before every problem."""
    said = str(error)
    return said[:1].lower() + said[1:]
