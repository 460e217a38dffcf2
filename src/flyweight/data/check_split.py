"""Check of a whole split: what no single image can show, such as a class that never occurs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flyweight.data.batch import IGNORE
from flyweight.data.check_maps import CheckedMap
from flyweight.data.records import BoxSet, ClassSet, ImageSet, MapSet, Problem
from flyweight.errors import counted
from flyweight.untrusted.file_bytes import is_file


def split_problems(images: ImageSet, maps: Sequence[CheckedMap]) -> Iterator[Problem]:
    """Yield the problems of a split as a whole; none for generated images.

    Args:
        images: The split.
        maps: Of a segmentation set, the result of the check of every label image.
    """
    if all(record.path is None for record in images.records):
        return
    if isinstance(images, BoxSet):
        yield from _box_split(images)
    elif isinstance(images, ClassSet):
        yield from _class_split(images)
    elif isinstance(images, MapSet):
        yield from _map_split(images, maps)


def one_class(train: ImageSet) -> Iterator[Problem]:
    """Yield a problem if a classification split for training has only one of several classes."""
    if not isinstance(train, ClassSet) or len(train.labels) < 2:
        return
    present = {record.label for record in train.records if record.path is not None}
    if len(present) == 1:
        name = train.labels[present.pop()]
        message = (
            "images for training must be of several classes. Received "
            f"{counted(len(train), 'image')} of '{name}' alone. Correct the labels."
        )
        yield Problem(source_of(train), None, message, kind="one_class")


def source_of(images: ImageSet) -> Path:
    """Return the list, annotation file or folder that names the images of a split."""
    return images.source if images.source is not None else Path(images.name)


def _box_split(images: BoxSet) -> Iterator[Problem]:
    counts = np.zeros(len(images.labels), dtype=np.int64)
    left_out = 0
    for record in images.records:
        ordinary = ~(record.difficult | record.crowd)
        counts += np.bincount(record.labels[ordinary], minlength=len(counts))
        left_out += int((~ordinary).sum())
    if counts.any():
        yield from _unused(images, np.flatnonzero(counts == 0).tolist(), "object")
        return
    others = f" and {left_out} that are difficult or crowds" if left_out else ""
    wanted = next((r.annotation for r in images.records if not is_file(r.annotation)), None)
    hint = f" For example, there is no '{wanted}'." if wanted is not None else ""
    message = (
        f"a split must have objects. Received no object{others} in "
        f"{counted(len(images), 'image')}.{hint} Check the folders and the class names."
    )
    yield Problem(source_of(images), None, message, kind="no_objects")


def _class_split(images: ClassSet) -> Iterator[Problem]:
    known = {problem.path.name for problem in images.problems if problem.kind == "unused_class"}
    present = {record.label for record in images.records}
    missing = [i for i, name in enumerate(images.labels) if i not in present and name not in known]
    yield from _unused(images, missing, "image")


def _map_split(images: MapSet, maps: Sequence[CheckedMap]) -> Iterator[Problem]:
    known = [(record, labels.values) for record, labels in zip(images.records, maps, strict=True)]
    values = frozenset[int]().union(*(found for _, found in known if found is not None))
    if images.values is None and IGNORE in values and values <= {0, IGNORE}:
        for record, found in known:
            if found is not None and IGNORE in found and record.map_path is not None:
                yield Problem(record.map_path, None, _BINARY, kind="masks_of_0_and_255")
        return
    if not values:
        return  # No label image could be read, which has been reported.
    table = images.values
    classes = values if table is None else {table[value] for value in values if value in table}
    present = {index for index in classes if 0 <= index < len(images.labels)}
    if present:
        missing = [index for index in range(len(images.labels)) if index not in present]
        yield from _unused(images, missing, "pixel")
        return
    message = (
        "a split must have labelled pixels. Received none in "
        f"{counted(len(images), 'label image')}. Check the values, and data.values."
    )
    yield Problem(source_of(images), None, message, kind="no_objects")


_BINARY = (
    f"labels must be class indices, where {IGNORE} means 'does not count'. Received 0 and {IGNORE} "
    "alone in the whole split. Give: -o 'data.values={0: 0, 255: 1}'"
)


def _unused(images: ImageSet, missing: Iterable[int], what: str) -> Iterator[Problem]:
    for index in missing:
        message = (
            f"a class should occur in every split. Received no {what} of '{images.labels[index]}' "
            f"in {counted(len(images), 'image')}. Add some, or remove the class from the labels."
        )
        yield Problem(source_of(images), None, message, kind="unused_class")
