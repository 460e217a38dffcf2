"""Conversion of detection sets between layouts, with a list of lost information."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flyweight.data.layouts.coco_write import write_coco
from flyweight.data.layouts.image_files import Transfer
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
    """Result of a conversion.

    Attributes:
        written: The list, annotation file or data card of the split.
        images: Number of images.
        boxes: Number of boxes in the new files.
        lost: Information that the layout cannot store, one sentence each.
    """

    written: Path
    images: int
    boxes: int
    lost: tuple[str, ...]


def convert(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    to: str,
    *,
    split: str | None = None,
    image_files: Transfer = "copy",
) -> Conversion:
    """Write a detection set in another layout.

    Args:
        box_set: The set, without problems, see `check`.
        folder: Target folder, which is created if needed. Other splits in it are kept.
        to: A key of `WRITERS`.
        split: Name of the split; None means the last part of the name of the set.
        image_files: How image files get into the folder; see `place_images`.

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
    written = WRITERS[to](box_set, folder, split=split, image_files=image_files)
    lost = tuple(_losses(box_set, to))
    boxes = sum(len(record.boxes) for record in box_set.records)
    if to == "yolo":
        boxes -= sum(int((r.difficult | r.crowd).sum()) for r in box_set.records)
    return Conversion(written, len(box_set), boxes, lost)


def _losses(box_set: BoxSet, to: str) -> Iterator[str]:
    """Yield sentences on information of a set that a layout cannot store."""
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
