"""Reader of label images: one value per pixel, and its class."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flyweight.data.batch import IGNORE
from flyweight.data.records import MapSet, Pixels
from flyweight.errors import DataError
from flyweight.untrusted.encoded_images import opened_image
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import MOST_IMAGE_BYTES, read_bytes

Values = npt.NDArray[np.int64]
_TABLE_SIZE = 1 << 16


def read_map(path: Path) -> Values:
    """Return the values of a label image, `(h, w)`; of a palette image, its indices.

    An EXIF orientation is ignored, because label images have one only by mistake.

    Raises:
        DataError: There is no such file, it does not decode, or it has colours instead of values.
    """
    must, remedy = (
        "Labels must be a readable file.",
        "Restore it or take the image out of the list.",
    )
    with refusing(DataError, must, f"'{path}'", remedy):
        data = read_bytes(path, MOST_IMAGE_BYTES)
    must = "Labels must decode to the last pixel."
    remedy = "Restore the file or take the image out of the list."
    with refusing(DataError, must, f"'{path}'", remedy), opened_image(data) as image:
        mode = image.mode
        values = np.asarray(image)
    if values.ndim == 3 and mode in ("RGB", "RGBA") and _is_grey(values):
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise DataError(
            f"Labels must hold one whole number per pixel. Received '{path}' with colours "
            f"(mode {mode}). Save class indices as a greyscale or palette PNG."
        )
    plain: Values = values.astype(np.int64)
    return plain


def class_map(values: Values, classes: int, table: Mapping[int, int] | None) -> Pixels:
    """Return the class of every pixel, `(h, w)` uint8, `IGNORE` for pixels without class.

    Args:
        values: Result of `read_map`.
        classes: Number of classes.
        table: See `MapSet.values`.

    Raises:
        DataError: Some values have no class; the error message names them.
    """
    unknown = unknown_values(values_in(values), classes, table)
    if unknown:
        raise DataError(unknown_message(unknown, classes, table))
    if table is None:
        return values.astype(np.uint8)
    lookup = np.full(_TABLE_SIZE, IGNORE, dtype=np.uint8)
    for value, index in table.items():
        lookup[value] = index
    mapped: Pixels = lookup[values]
    return mapped


def values_in(values: Values) -> list[int]:
    """Return the values that occur, sorted."""
    # Counting is much faster than sorting all pixels, and values are small.
    if values.size and int(values.min()) >= 0 and int(values.max()) < _TABLE_SIZE:
        present = np.flatnonzero(np.bincount(values.ravel()))
    else:
        present = np.unique(values)
    return [int(value) for value in present]


def unknown_values(
    present: Iterable[int], classes: int, table: Mapping[int, int] | None
) -> list[int]:
    """Return the values without class, in their order.

    Args:
        present: Result of `values_in`.
        classes: Number of classes.
        table: See `MapSet.values`.
    """
    known = {*range(classes), IGNORE} if table is None else set(table)
    return [value for value in present if value not in known]


def unknown_message(unknown: list[int], classes: int, table: Mapping[int, int] | None) -> str:
    """Return the error message about values without class."""
    shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
    if table is None:
        rule = f"a label must be within 0..{classes - 1}, or {IGNORE} where none counts"
    else:
        rule = f"a label must be one of {', '.join(map(str, sorted(table)))}"
    return f"{rule}. Received {shown}. Correct the file, or say in data.values what they mean."


def map_of(images: MapSet, index: int) -> Pixels:
    """Return the labels of the image with index `index` of a set, `(h, w)` uint8.

    Raises:
        DataError: Its file cannot be read or has values of no class.
    """
    path = images.records[index].map_path
    if path is None:
        if images.label_map is None:
            raise DataError(
                f"Labels {index} of '{images.name}' must have a file or a maker. Received "
                "neither. Give the set a `label_map` function."
            )
        return images.label_map(index)
    try:
        return class_map(read_map(path), len(images.labels), images.values)
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"In '{path}' {error}") from error


def _is_grey(values: npt.NDArray[np.generic]) -> bool:
    red, green, blue = (values[..., channel] for channel in range(3))
    return bool((red == green).all() and (green == blue).all())
