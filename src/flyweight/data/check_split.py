"""Check of a whole split: what no single image can show, such as a class that never occurs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flyweight.data.batch import IGNORE
from flyweight.data.check_maps import CheckedMap
from flyweight.data.records import BoxSet, ClassSet, ImageSet, MapRecord, MapSet, Problem
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


def one_class(train: ImageSet, found: Sequence[Problem]) -> Iterator[Problem]:
    """Yield a problem if a split for training has only one of several classes.

    A detector learns from objects of one class, too, so detection sets have no such problem.

    Args:
        train: The split.
        found: The problems of the split.
    """
    unused = sum(problem.kind == "unused_class" for problem in found)
    if isinstance(train, BoxSet) or not unused or unused != len(train.labels) - 1:
        return
    message = (
        f"training needs several classes. Received {counted(len(train), 'image')} with one of "
        f"{len(train.labels)} classes alone. Correct the labels."
    )
    yield Problem(source_of(train), None, message, kind="one_class")


def source_of(images: ImageSet) -> Path:
    """Return the list, annotation file or folder that names the images of a split."""
    return images.source if images.source is not None else Path(images.name)


def class_counts(images: ImageSet) -> tuple[int, ...] | None:
    """Return how often every class occurs, as far as it is known without reading label images.

    For boxes, the number of objects that are neither difficult nor crowds; for classes, the number
    of images; None for label images.
    """
    if isinstance(images, BoxSet):
        rows = [record.labels[~(record.difficult | record.crowd)] for record in images.records]
    elif isinstance(images, ClassSet):
        rows = [np.array([record.label for record in images.records], dtype=np.int64)]
    else:
        return None
    known = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    return tuple(np.bincount(known, minlength=len(images.labels)).tolist())


def _box_split(images: BoxSet) -> Iterator[Problem]:
    counts = class_counts(images) or ()
    left_out = sum(int((record.difficult | record.crowd).sum()) for record in images.records)
    if any(counts):
        yield from _unused(images, (i for i, count in enumerate(counts) if not count), "object")
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
    if images.values is None and values == {0, IGNORE}:
        yield from (
            Problem(record.map_path or record.annotation, None, _BINARY, kind="masks_of_0_and_255")
            for record, found in known
            if found is not None and IGNORE in found
        )
        return
    if images.values is None:
        yield from _mixed(known)
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


def _mixed(known: Sequence[tuple[MapRecord, frozenset[int] | None]]) -> Iterator[Problem]:
    """Yield the label images of 0 and 255 beside others that have classes and never 255.

    Where 255 borders objects, as in VOC, it occurs together with their classes.
    """
    sets = [(record, found) for record, found in known if found is not None]
    with_classes = [found for _, found in sets if found - {0, IGNORE}]
    if not with_classes or any(IGNORE in found for found in with_classes):
        return
    for record, found in sets:
        if found == {0, IGNORE}:
            path = record.map_path or record.annotation
            yield Problem(path, None, _MIXED, kind="mixed_masks")


_MIXED = (
    f"label images should have one encoding. Received 0 and {IGNORE} alone, where others have "
    f"classes and never {IGNORE}, which means 'does not count'. Write the file with class indices."
)
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
