"""Going on without the bad pictures and boxes of a set, where the user says so.

Published sets have some that nobody will correct: WIDER FACE has faces of no width and faces given
twice, COCO has boxes of no height.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from flyweight.data.check import check, check_apart, refuse
from flyweight.data.records import BoxRecord, PictureSet, Problem
from flyweight.errors import counted
from flyweight.files import write_text

Pictures = TypeVar("Pictures", bound=PictureSet)


def leave_out_bad(
    train: Pictures, val: Pictures | None = None, *, list_to: Path | None = None
) -> tuple[Pictures, Pictures | None]:
    """Return the splits without what is bad; `problems` of each tells what that was.

    A bad box goes alone, a bad picture with all its boxes. A picture in both splits stays in
    training.

    Args:
        train: A split to check.
        val: Another, checked by itself and against the first.
        list_to: File for everything that was left out, one per line.

    Raises:
        DataError: Something is wrong that leaving out does not mend: the splits have other classes,
            or nothing remains.
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


def left_out(pictures: PictureSet) -> str:
    """Return what a set goes without, in words; empty if nothing.

    Example:
        >>> left_out(PictureSet("faces/train", ("face",), ()))
        ''
    """
    if not pictures.problems:
        return ""
    first = pictures.problems[0]
    return (
        f"left out of {pictures.name}: {counted(len(pictures.problems), 'problem')}, first: {first}"
    )


def _without(pictures: Pictures, problems: Sequence[Problem]) -> Pictures:
    whole = {id(p.record) for p in problems if p.record is not None and p.box is None}
    boxes: dict[int, list[int]] = {}
    for problem in problems:
        if problem.box is not None:
            boxes.setdefault(id(problem.record), []).append(problem.box)
    records = tuple(
        _thinned(record, boxes.get(id(record), [])) if isinstance(record, BoxRecord) else record
        for record in pictures.records
        if id(record) not in whole
    )
    return replace(pictures, records=records, problems=tuple(problems))


def _thinned(record: BoxRecord, bad: Sequence[int]) -> BoxRecord:
    if not bad:
        return record
    kept = np.ones(len(record.boxes), dtype=np.bool_)
    kept[list(bad)] = False
    return record.only(kept)
