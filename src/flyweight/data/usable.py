"""Removal of bad images and boxes from a set, on request of the user.

Published sets contain errors that will not be corrected: WIDER FACE has faces of zero width and
repeated faces, COCO has boxes of zero height.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from flyweight.data.check import check_both, refuse
from flyweight.data.check_split import split_problems
from flyweight.data.records import BoxRecord, BoxSet, ImageSet, Problem
from flyweight.errors import counted
from flyweight.files import write_text
from flyweight.progress import SILENT, Progress

Images = TypeVar("Images", bound=ImageSet)


def leave_out_bad(
    train: Images,
    val: Images | None = None,
    *,
    list_to: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[Images, Images | None]:
    """Return the splits without bad images and boxes, which are listed in `problems` of each.

    Of a bad box only the box is removed, of a bad image the whole record. An image in both splits
    is kept in training.

    Args:
        train: A split.
        val: Another split, which is checked by itself and against the first.
        list_to: File for the list of all problems, one per line.
        progress: Receives progress.

    Raises:
        DataError: A problem cannot be solved by removal: the splits have different classes, or
            nothing remains.
    """
    problems, apart = check_both(train, val, progress=progress)
    readers = {*train.problems, *(() if val is None else val.problems)}
    fatal = [p for p in (*problems, *apart) if p.record is None and p.stops and p not in readers]
    good = _without(train, problems)
    good_val = None if val is None else _without(val, apart)
    for left in (good, good_val):
        if left is not None:
            fatal = fatal or _nothing_left(left)
    if fatal:
        refuse(fatal, list_to)
    if list_to is not None and any(problem.stops for problem in (*problems, *apart)):
        write_text(list_to, "".join(f"{problem}\n" for problem in (*problems, *apart)))
    return good, good_val


def _nothing_left(images: ImageSet) -> list[Problem]:
    """Return why a split without its bad images and boxes cannot be used; nothing if it can."""
    if not len(images):
        return [problem for problem in images.problems if problem.stops]
    if not isinstance(images, BoxSet):
        return []
    return [problem for problem in split_problems(images, ()) if problem.stops]


def notes_on(images: ImageSet) -> tuple[str, ...]:
    """Return a line for the entries removed from a set, and one per kind of its other problems.

    Args:
        images: A result of `leave_out_bad` or `require_sound`.

    Example:
        >>> notes_on(ImageSet("faces/train", ("face",), ()))
        ()
    """
    kept = {id(record) for record in images.records}
    removed: list[Problem] = []
    others: list[Problem] = []
    for problem in images.problems:
        gone = problem.record is not None and id(problem.record) not in kept
        (removed if problem.stops or gone else others).append(problem)
    notes = []
    if removed:
        count = counted(len(removed), "problem")
        notes.append(f"left out of {images.name}: {count}, first: {removed[0]}")
    for kind in dict.fromkeys(problem.kind for problem in others):
        same = [problem for problem in others if problem.kind == kind]
        notes.append(f"data of {images.name}: {len(same)} x {kind}, first: {same[0]}")
    return tuple(notes)


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
