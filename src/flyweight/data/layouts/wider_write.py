"""Writer of detection sets in the WIDER FACE layout."""

import os
from pathlib import Path

import numpy as np

from flyweight.data.layouts.image_files import Transfer, place_images
from flyweight.data.layouts.wider import ATTRIBUTES, event_of
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.files import write_text


def write_wider(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    image_files: Transfer = "copy",
) -> Path:
    """Write images into folders per event and the text of the split.

    An image whose folder is an event ("0--Parade") stays in a folder of this name. Other images go
    into "0--<split>", because tools recognise paths by the two dashes. All objects become faces;
    difficult objects and crowds become invalid faces.

    Args:
        box_set: The set.
        folder: Target folder, which is created if needed.
        split: Names the text; None means the last part of the name of the set.
        image_files: How image files get into the folder; see `place_images`.

    Returns:
        The text, the last file written.

    Raises:
        DataError: An image is missing.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    part = split if split is not None else box_set.name.rpartition("/")[2]
    images = root / f"WIDER_{part}" / "images"
    events = [_event(record, part) for record in box_set.records]
    placed: dict[int, Path] = {}
    for event in dict.fromkeys(events):
        indices = [index for index, other in enumerate(events) if other == event]
        paths = place_images(_part(box_set, indices), images / event, part, image_files)
        placed |= dict(zip(indices, paths, strict=True))
    lines: list[str] = []
    for index, record in enumerate(box_set.records):
        lines.append(f"{events[index]}/{placed[index].name}")
        lines.append(str(len(record.boxes)))
        lines += _rows(record)
    target = root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
    write_text(target, "".join(f"{line}\n" for line in lines))
    return target


def _event(record: BoxRecord, split: str) -> str:
    event = event_of(record.path) if record.path is not None else ""
    return event if "--" in event else f"0--{split}"


def _part(box_set: BoxSet, indices: list[int]) -> BoxSet:
    make = box_set.image
    image = None if make is None else lambda index: make(indices[index])
    records = tuple(box_set.records[index] for index in indices)
    return BoxSet(box_set.name, box_set.labels, records, image)


def _rows(record: BoxRecord) -> list[str]:
    if not len(record.boxes):
        return [" ".join(["0"] * (4 + len(ATTRIBUTES)))]
    boxes = record.boxes.astype(np.float64)
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    invalid = (record.difficult | record.crowd).astype(int)
    rows = []
    for row, flag in zip(sides, invalid, strict=True):
        numbers = [f"{value:.12g}" for value in row]
        flags = [str(flag) if name == "invalid" else "0" for name in ATTRIBUTES]
        rows.append(" ".join([*numbers, *flags]))
    return rows
