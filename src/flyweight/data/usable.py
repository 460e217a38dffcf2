"""Removal of bad images and boxes from a set, on request of the user.

Published sets contain errors that will not be corrected: WIDER FACE has faces of zero width and
repeated faces, COCO has boxes of zero height.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from flyweight.data.check import check, check_apart, refuse
from flyweight.data.records import BoxRecord, ImageSet, Problem
from flyweight.errors import counted
from flyweight.files import write_text

Images = TypeVar("Images", bound=ImageSet)


def leave_out_bad(
    train: Images, val: Images | None = None, *, list_to: Path | None = None
) -> tuple[Images, Images | None]:
    """Return the splits without bad images and boxes, which are listed in `problems` of each.

    Of a bad box only the box is removed, of a bad image the whole record. An image in both splits
    is kept in training.

    Args:
        train: A split.
        val: Another split, which is checked by itself and against the first.
        list_to: File for the list of all removed entries, one per line.

    Raises:
        DataError: A problem cannot be solved by removal: the splits have different classes, or
            nothing remains.
    """
    problems = list(check(train))
    apart = [] if val is None else [*check(val), *check_apart(train, val)]
    readers = {*train.problems, *(() if val is None else val.problems)}
    fatal = [p for p in (*problems, *apart) if p.record is None and p not in readers]
    good = _without(train, problems)
    good_val = None if val is None else _without(val, apart)
    for left in (good, good_val):
        if left is not None and not len(left):
            fatal = fatal or list(left.problems)
    if fatal:
        refuse(fatal, list_to)
    if list_to is not None and (problems or apart):
        write_text(list_to, "".join(f"{problem}\n" for problem in (*problems, *apart)))
    return good, good_val


def left_out(images: ImageSet) -> str:
    """Return a sentence on the entries removed from a set; empty if there are none.

    Example:
        >>> left_out(ImageSet("faces/train", ("face",), ()))
        ''
    """
    if not images.problems:
        return ""
    first = images.problems[0]
    return f"left out of {images.name}: {counted(len(images.problems), 'problem')}, first: {first}"


def _without(images: Images, problems: Sequence[Problem]) -> Images:
    whole = {id(p.record) for p in problems if p.record is not None and p.box is None}
    boxes: dict[int, list[int]] = {}
    for problem in problems:
        if problem.box is not None:
            boxes.setdefault(id(problem.record), []).append(problem.box)
    records = tuple(
        _thinned(record, boxes.get(id(record), [])) if isinstance(record, BoxRecord) else record
        for record in images.records
        if id(record) not in whole
    )
    return replace(images, records=records, problems=tuple(problems))


def _thinned(record: BoxRecord, bad: Sequence[int]) -> BoxRecord:
    if not bad:
        return record
    kept = np.ones(len(record.boxes), dtype=np.bool_)
    kept[list(bad)] = False
    return record.only(kept)
