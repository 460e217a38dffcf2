"""Meaning of the values in label images, for sets that do not describe them."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.data.batch import IGNORE
from flyweight.data.layouts.map_files import read_map

_THREADS = 4
_MOST_FILES = 400
_MOST_CLASSES = 64


def values_in(paths: Sequence[Path]) -> tuple[int, ...]:
    """Return the different values in label images, sorted; of at most 400 files, evenly chosen.

    Raises:
        DataError: A file is no label image.
    """
    every = max(1, -(-len(paths) // _MOST_FILES))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: np.unique(read_map(path)).tolist(), paths[::every])
    return tuple(sorted({int(value) for values in found for value in values}))


def meaning_of(
    values: Iterable[int], labels: Sequence[str] | None
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return settings of the data that give every value a class, and notes.

    Args:
        values: The values that occur.
        labels: Class names that the set lists, if it does.

    Example:
        >>> settings, notes = meaning_of((0, 255), None)
        >>> settings["labels"], settings["values"]
        (('background', 'object'), {0: 0, 255: 1})
        >>> meaning_of((0, 1, 2, 255), ("sky", "road", "car"))
        ({}, ())
    """
    present = sorted({*values})
    counted = [value for value in present if value != IGNORE]
    if labels is not None:
        plain = max(counted, default=0) < len(labels) and present != [0, IGNORE]
        if plain or len(present) != len(labels):
            return {}, ()  # The check names values without class.
        return {"values": {value: index for index, value in enumerate(present)}}, (_SPREAD,)
    if len(present) == 2 and present[0] == 0:
        names: tuple[str, ...] = ("background", "object")
    elif max(counted, default=0) < _MOST_CLASSES:
        present = [*range(max(counted, default=0) + 1)]  # A class that does not occur has an index.
        names = tuple(f"class_{index}" for index in present)
    else:
        names = tuple(f"class_{index}" for index in range(len(present)))
    settings: dict[str, Any] = {"labels": names}
    if present == [*range(len(present))]:
        return settings, (_UNNAMED,)
    settings["values"] = {value: index for index, value in enumerate(present)}
    return settings, (_UNNAMED, _SPREAD)


_UNNAMED = "the set has no class names (labels.txt); correct data.labels"
_SPREAD = "the values of the label images are spread, so data.values gives each one its class"
