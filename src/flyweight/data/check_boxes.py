"""Check of the boxes and masks of one image."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flyweight.data.problem_kinds import KindName
from flyweight.data.records import BoxRecord, Flags, Problem

# VOC counts pixels from 1, and tools disagree whether a box ends on or after its last pixel. So a
# box may exceed its image by one pixel; loading clips it.
_TOLERANCE = 1.0
_REMOVE = "Correct or remove it."


def box_problems(
    record: BoxRecord, size: tuple[int, int] | None, labels: Sequence[str]
) -> Iterator[Problem]:
    """Yield the problems of the objects of one image, at most one of each box.

    Args:
        record: The image and its objects.
        size: Height and width of the upright image, None for an unreadable image.
        labels: Class names.
    """
    if not len(record.boxes):
        return
    # Where the annotation has another size than the image, that has been reported.
    height, width = size if size is not None else (record.height, record.width)
    with np.errstate(invalid="ignore"):  # NaN is one of the faults.
        faults = tuple(_faults(record, height, width))
    found: set[int] = set()
    for fault in faults:
        for box in np.flatnonzero(fault.boxes).tolist():
            if box in found:
                continue
            found.add(box)
            corners = ", ".join(f"{value:g}" for value in record.boxes[box].tolist())
            name = labels[int(record.labels[box])]
            message = f"{fault.rule} Received '{name}' at {corners}. {fault.remedy}"
            yield record.problem(box, message, fault.kind)
    if size is not None:
        yield from _mask_problems(record, size, found)


class _Fault(NamedTuple):
    kind: KindName
    boxes: Flags
    rule: str
    remedy: str


def _faults(record: BoxRecord, height: int, width: int) -> Iterator[_Fault]:
    """Yield the rules with the boxes that break them, the most serious rule first."""
    boxes = record.boxes
    low, high = boxes[:, :2], boxes[:, 2:]
    infinite = _any(~np.isfinite(boxes))
    yield _Fault("infinite_box", infinite, "a box must have finite corners.", _REMOVE)
    sides = "a box must have width and height above 0."
    exchanged = "Exchange the two corners, or remove it."
    yield _Fault("exchanged_corners", _any(high < low), sides, exchanged)
    yield _Fault("empty_box", _any(high <= low), sides, _REMOVE)
    if height and width:
        limit = np.array([width, height], dtype=np.float32) + _TOLERANCE
        outside = _any((low < -_TOLERANCE) | (high > limit))
        rule = f"a box must lie in its image of {width}x{height}."
        yield _Fault("box_outside", outside, rule, "Clip or remove it.")
    yield _Fault("repeated_box", _repeats(record), "a box must be given once.", "Remove the copy.")


def _mask_problems(record: BoxRecord, size: tuple[int, int], found: set[int]) -> Iterator[Problem]:
    """Yield the boxes whose run lengths are of another size than the image."""
    for box, outline in enumerate(record.outlines or ()):
        if box in found or not isinstance(outline, dict) or tuple(outline["size"]) == size:
            continue
        height, width = outline["size"]
        exchanged = " (the sides are exchanged)" if (width, height) == size else ""
        message = (
            f"run lengths must have the size of their image, [{size[0]}, {size[1]}]. "
            f"Received [{height}, {width}]{exchanged}. Write the mask again."
        )
        yield record.problem(box, message, "run_lengths")


def _any(flags: Flags) -> Flags:
    """Return whether any flag of each row is set."""
    found: Flags = np.logical_or.reduce(flags, axis=1)
    return found


def _repeats(record: BoxRecord) -> Flags:
    """Return which boxes are equal to an earlier box of the same class."""
    repeated = np.zeros(len(record.boxes), dtype=np.bool_)
    seen: set[tuple[float, ...]] = set()
    for row, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels, strict=True)):
        entry = (*box, float(label))
        repeated[row] = entry in seen
        seen.add(entry)
    return repeated
