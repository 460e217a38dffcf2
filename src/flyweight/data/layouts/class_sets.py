"""Readers of classification sets: a folder per class, or a list of images and their classes.

root/<split>/<class>/**/<image>      `imagefolder`, as torchvision's ImageFolder and ImageNet
root/<list>.txt, root/labels.txt       `class_list`: lines `image class`, as in PaddleX, where the
                                       class is an index or a name
"""

import os
from collections.abc import Sequence
from pathlib import Path

from flyweight.data.layouts.listing import (
    folders_in,
    images_below,
    index_of,
    labels_in,
    lines_of,
    require_folder,
    require_list,
)
from flyweight.data.records import ClassRecord, ClassSet, Problem
from flyweight.errors import DataError, nearest

_MOST_DIGITS = 18  # Of an index of a class.


def read_class_folders(
    root: str | os.PathLike[str], split: str, *, labels: Sequence[str] | None = None
) -> ClassSet:
    """Read one split with one folder per class. No image is opened.

    Args:
        root: Folder of the set.
        split: Folder of the split in it; "." for a set without splits.
        labels: Names of the class folders in the order of their indices; None means the folders of
            the split in alphabetical order.

    Raises:
        DataError: There is no such folder, or there are no classes in it.
    """
    folder = Path(root) / split
    _require_split(Path(root), split)
    found = folders_in(folder)
    names = tuple(labels) if labels is not None else found
    if not names:
        raise DataError(
            f"A split must hold a folder for every class. Received '{folder}' without any. "
            "Move the images of each class into a folder of its name."
        )
    problems = [
        Problem(
            folder / name,
            None,
            f"a class folder must be of a known class. Received '{name}'. {nearest(name, names)}",
        )
        for name in found
        if name not in names
    ]
    records: list[ClassRecord] = []
    for index, name in enumerate(names):
        images = list(images_below(folder / name)) if name in found else []
        if not images:
            message = (
                "a class folder must hold images. Received none. "
                "Add some, or give `labels` without this class."
            )
            problems.append(Problem(folder / name, None, message, kind="unused_class"))
        records += [ClassRecord(path, index, path.parent) for path in images]
    name = f"{Path(root).name}/{Path(split).name or split}"
    return ClassSet(name, names, tuple(records), problems=tuple(problems), source=folder)


def read_class_list(
    root: str | os.PathLike[str], split: str, *, labels: Sequence[str] | None = None
) -> ClassSet:
    """Read one split from a list of lines `image class`. No image is opened.

    A class is an index into the labels or a label. Invalid lines are left out and listed in
    `ClassSet.problems`.

    Args:
        root: Folder of the set; the images are relative to it.
        split: Path of the list, relative to `root`, with or without `.txt` or `_list.txt`.
        labels: Class names; None reads `labels.txt` or `label_list.txt`.

    Raises:
        DataError: The folder, the list or the class names are missing.
    """
    folder = Path(root)
    require_folder(folder, "A classification set")
    source = require_list(folder, split)
    names = tuple(labels) if labels is not None else labels_in(folder)
    indices = index_of(names)
    records: list[ClassRecord] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines_of(source), start=1):
        if not line:
            continue
        image, given = line.rsplit(maxsplit=1) if len(line.split()) > 1 else ("", line)
        label = indices.get(given, int(given) if _is_index(given) else -1)
        if not image or not 0 <= label < len(names):
            problems.append(Problem(source, number, _unreadable(line, image, given, names)))
            continue
        records.append(ClassRecord(folder / image, label, source, number))
    name = f"{folder.name}/{source.stem}"
    return ClassSet(name, names, tuple(records), problems=tuple(problems), source=source)


def _is_index(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def _require_split(root: Path, split: str) -> None:
    require_folder(root, "A classification set")
    if not (root / split).is_dir():
        known = folders_in(root)
        hint = nearest(split, known) if known else "There are no folders in it."
        raise DataError(f"A split must be a folder in '{root}'. Received '{split}'. {hint}")


def _unreadable(line: str, image: str, given: str, names: Sequence[str]) -> str:
    if not image:
        return f"a line must read 'image class'. Received '{line}'. Correct or remove it."
    if given.isdecimal():
        return f"the class must be within 0..{len(names) - 1}. Received {given}. Correct it."
    return f"the class must be a known one. Received '{given}'. {nearest(given, names)}"
