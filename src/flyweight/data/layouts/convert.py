"""From one layout of detection sets to another, with what it costs in words."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flyweight.data.layouts.coco_write import write_coco
from flyweight.data.layouts.image_files import How
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.layouts.wider_write import write_wider
from flyweight.data.layouts.yolo_write import write_yolo
from flyweight.data.records import BoxSet
from flyweight.errors import ConfigError, counted, nearest

WRITERS: Mapping[str, Callable[..., Path]] = {
    "voc": write_voc,
    "coco": write_coco,
    "wider": write_wider,
    "yolo": write_yolo,
}
"""Every layout that can be written."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        written: The list, annotation file or card of the split.
        pictures: How many.
        boxes: How many stand in the new files.
        lost: What the layout cannot say, a sentence each.
    """

    written: Path
    pictures: int
    boxes: int
    lost: tuple[str, ...]


def convert(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    to: str,
    *,
    split: str | None = None,
    pictures: How = "copy",
) -> Conversion:
    """Write a detection set in another layout.

    Args:
        box_set: What to write; it should be sound, see `check`.
        folder: Made where it does not exist; other splits in it stay.
        to: A key of `WRITERS`.
        split: What the split is called; None takes the last part of the set's name.
        pictures: How they get there; see `place_images`.

    Raises:
        ConfigError: There is no such layout.
        DataError: The folder holds a set with other classes, or an image is missing.
        FileError: The folder cannot be written.
    """
    if to not in WRITERS:
        raise ConfigError(
            f"A detection set must be written in a known layout. Received '{to}'. "
            f"{nearest(to, WRITERS)}"
        )
    written = WRITERS[to](box_set, folder, split=split, pictures=pictures)
    lost = tuple(_losses(box_set, to))
    boxes = sum(len(record.boxes) for record in box_set.records)
    if to == "yolo":
        boxes -= sum(int((r.difficult | r.crowd).sum()) for r in box_set.records)
    return Conversion(written, len(box_set), boxes, lost)


def _losses(box_set: BoxSet, to: str) -> Iterator[str]:
    """Yield what a layout cannot say of a set."""
    flags = {
        name: int(np.sum([getattr(record, name).sum() for record in box_set.records]))
        for name in ("difficult", "crowd")
    }
    difficult = counted(flags["difficult"], "difficult object")
    crowd = counted(flags["crowd"], "crowd region")
    if to == "yolo" and flags["difficult"]:
        yield f"{difficult} left out: YOLO's texts have no flags"
    if to == "yolo" and flags["crowd"]:
        yield f"{crowd} left out: YOLO's texts have no flags"
    if to == "voc" and flags["crowd"]:
        yield f"{crowd} written as difficult: VOC knows no crowds"
    if to == "wider" and flags["crowd"]:
        yield f"{crowd} written as invalid: WIDER's texts know no crowds"
    if to == "wider" and len(box_set.labels) > 1:
        yield f"{len(box_set.labels)} class names became faces: WIDER's texts have one class"
