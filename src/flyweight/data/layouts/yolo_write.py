"""Writer of detection sets in the YOLO layout."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flyweight.data.layouts.image_files import Transfer, place_images, size_of
from flyweight.data.layouts.yolo_txt import CARD, label_path
from flyweight.data.records import BoxRecord, BoxSet
from flyweight.errors import DataError
from flyweight.files import write_text
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.yaml_values import parse_yaml


def write_yolo(
    box_set: BoxSet,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    image_files: Transfer = "copy",
) -> Path:
    """Write images into `images/<split>`, boxes into `labels/<split>` and `data.yaml`.

    Several splits can go into one folder. The layout has no flags, so difficult objects and crowds
    are left out, as other converters do.

    Args:
        box_set: The set.
        folder: Target folder, which is created if needed.
        split: Names the folders; None means the last part of the name of the set.
        image_files: How image files get into the folder; see `place_images`.

    Returns:
        `data.yaml`, the last file written.

    Raises:
        DataError: The folder holds a set with other classes, or an image is missing.
        FileError: The folder cannot be written.
    """
    root = Path(folder)
    part = split if split is not None else box_set.name.rpartition("/")[2]
    card = _card(root / CARD, box_set.labels) | {part: f"images/{part}"}
    # Also created without images, because `data.yaml` names it.
    (root / "images" / part).mkdir(parents=True, exist_ok=True)
    placed = place_images(box_set, root / "images" / part, part, image_files, by_stem=True)
    for index, (path, record) in enumerate(zip(placed, box_set.records, strict=True)):
        text = "".join(f"{row}\n" for row in _rows(record, size_of(box_set, index)))
        write_text(label_path(path), text, durable=False)
    target = root / CARD
    write_text(target, yaml.safe_dump(card, sort_keys=False, allow_unicode=True))
    return target


def _card(path: Path, labels: tuple[str, ...]) -> dict[str, Any]:
    names = dict(enumerate(labels))
    if not path.is_file():
        return {"names": names}
    must = "Splits in one folder must have the same classes."
    with refusing(DataError, must, f"'{path}'", "Choose another folder."):
        card = parse_yaml(read_text(path))
    if not isinstance(card, dict) or card.get("names") not in (names, list(labels)):
        raise DataError(
            f"Splits in one folder must have the same classes. Received others than '{path}' has. "
            "Choose another folder."
        )
    return card


def _rows(record: BoxRecord, size: tuple[int, int]) -> Iterator[str]:
    height, width = size
    ordinary = ~(record.difficult | record.crowd)
    scale = np.array([width, height], dtype=np.float64)
    low = record.boxes[ordinary, :2].astype(np.float64) / scale
    high = record.boxes[ordinary, 2:].astype(np.float64) / scale
    values = np.concatenate([(low + high) / 2, high - low], axis=1)
    for label, row in zip(record.labels[ordinary], values, strict=True):
        # Enough digits for a hundredth of a pixel in every image.
        yield " ".join([str(int(label)), *(f"{value:.8f}" for value in row)])
