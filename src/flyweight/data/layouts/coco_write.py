"""Writer of detection sets as COCO annotations."""

import json
import os
from pathlib import Path
from typing import Any

from flyweight.data.layouts.image_files import Transfer, place_images, size_of
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.files import write_text


def write_coco(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    image_files: Transfer = "copy",
) -> Path:
    """Write images into `<split>/` and boxes into `annotations/instances_<split>.json`.

    Categories are numbered from 1 and images from 1, in their order. Crowds become `iscrowd`;
    difficult objects get `ignore`, which `read_coco` reads and COCO's own tools do not.

    Args:
        box_set: The set.
        folder: Target folder, which is created if needed.
        split: Names the file and the folder; None means the last part of the name of the set.
        image_files: How image files get into the folder; see `place_images`.

    Returns:
        The annotation file, the last file written.

    Raises:
        DataError: An image is missing.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    part = split if split is not None else box_set.name.rpartition("/")[2]
    placed = place_images(box_set, root / part, part, image_files)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (path, record) in enumerate(zip(placed, box_set.records, strict=True)):
        height, width = size_of(box_set, index)
        images.append({"id": index + 1, "file_name": path.name, "width": width, "height": height})
        annotations += _annotations(record, index + 1, len(annotations) + 1)
    names = enumerate(box_set.labels, start=1)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in names],
    }
    target = root / "annotations" / f"instances_{part}.json"
    write_text(target, json.dumps(content))
    return target


def _annotations(record: BoxRecord, image: int, first: int) -> list[dict[str, Any]]:
    rows = []
    areas = None if record.stated is None else record.stated[:, 4]
    columns = zip(record.boxes, record.labels, record.crowd, record.difficult, strict=True)
    for number, (box, label, crowd, difficult) in enumerate(columns, start=first):
        left, top, right, bottom = (float(side) for side in box)
        width, height = right - left, bottom - top
        rows.append(
            {
                "id": number,
                "image_id": image,
                "category_id": int(label) + 1,
                "bbox": [left, top, width, height],
                "area": width * height if areas is None else float(areas[number - first]),
                "iscrowd": int(crowd),
                "ignore": int(difficult),
            }
        )
    return rows
