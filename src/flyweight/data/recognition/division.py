"""Division of images for training and validation, for sets that have no validation split."""

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flyweight.data.recognition.folder import Folder
from flyweight.data.recognition.found import Found
from flyweight.data.recognition.splits import chosen
from flyweight.data.records import BoxRecord, ClassRecord, ImageSet, MapRecord
from flyweight.errors import DataError

VALIDATION_SHARE = 5
"""One image in so many is used for validation."""

Texts = Mapping[str, str]


def divide(
    entries: Sequence[str], strata: Sequence[Hashable] | None = None
) -> tuple[list[str], list[str]]:
    """Return the entries for training and those for validation, in their order.

    The choice depends on the entries alone. Every stratum with two entries or more is in both.

    Args:
        entries: Such as the lines of a list.
        strata: Such as the class of each entry; None has one stratum.

    Raises:
        DataError: There are fewer than two entries.

    Example:
        >>> [len(part) for part in divide([f"{number}.jpg" for number in range(50)])]
        [40, 10]
    """
    if len(entries) < 2:
        raise DataError(
            "A set must have at least two images, one for training and one for validation. "
            f"Received {len(entries)}. Add images."
        )
    groups: dict[Hashable, list[str]] = {}
    for entry, stratum in zip(entries, strata or [None] * len(entries), strict=True):
        groups.setdefault(stratum, []).append(entry)
    single = [entry for group in groups.values() if len(group) == 1 for entry in group]
    several = [group for group in groups.values() if len(group) > 1]
    val: set[str] = set()
    for group in [*several, single]:
        ordered = sorted(group, key=lambda entry: hashlib.sha256(entry.encode()).digest())
        count = round(len(group) / VALIDATION_SHARE)
        val.update(ordered[: max(1, count) if group in several else count])
    if not val:
        val.add(entries[-1])
    return [e for e in entries if e not in val], [e for e in entries if e in val]


def listed_splits(found: Found) -> tuple[Texts, tuple[str, ...]]:
    """Return the texts of list files for images that no list of the set names, and notes.

    Raises:
        DataError: There are fewer than two images.
    """
    choice = None if "all" in found.listed else chosen(found.listed)
    train, val, notes = choice or ((), None, ())
    if val is not None:
        return {"train.txt": _text(train), "val.txt": _text(val)}, notes
    lines = [line for split in found.listed.values() for line in split]
    strata = None
    if found.format == "class_list":
        strata = [line.rsplit(maxsplit=1)[1] for line in lines]
    return _texts(*divide(lines, strata)), (_NOTE,)


def divided_split(found: Found, images: ImageSet, folder: Folder) -> tuple[Texts, tuple[str, ...]]:
    """Return the texts of list files that divide the only split of a set, and notes.

    Args:
        found: The layout.
        images: The split.
        folder: The set.

    Raises:
        DataError: The layout cannot be divided, or there are fewer than two images.
    """
    if found.format == "coco":
        return _divided_coco(folder.root / str(found.settings["train"])), (_NOTE,)
    if found.format not in ("voc", "yolo", "class_list", "imagefolder", "masks"):
        raise DataError(
            f"A {found.format} set must have a validation split. Received '{folder.root}' without "
            "one. Add it, or write the set in another layout with flyweight convert-data."
        )
    lines = [_line(record, folder.root, images.labels) for record in images.records]
    strata = [getattr(record, "label", None) for record in images.records]
    return _texts(*divide(lines, strata)), (_NOTE,)


_NOTE = (
    f"there is no validation split, so one image in {VALIDATION_SHARE} is taken for it: divide "
    "by hand where several images show the same object"
)


def _line(record: Any, root: Path, labels: Sequence[str]) -> str:
    """Return the line of a list that the reader of the layout takes."""
    image = _relative(record.path, root)
    if isinstance(record, ClassRecord):
        name = labels[record.label]
        return f"{image} {name if len(name.split()) == 1 else record.label}"
    if isinstance(record, MapRecord) and record.map_path is not None:
        labels_file = _relative(record.map_path, root)
        return f"{image}{chr(9) if ' ' in image + labels_file else ' '}{labels_file}"
    if isinstance(record, BoxRecord) and record.annotation.suffix.lower() == ".xml":
        return f"{image} {_relative(record.annotation, root)}"
    return image


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _divided_coco(path: Path) -> Texts:
    content = json.loads(path.read_bytes())
    names = [str(item["id"]) for item in content["images"]]
    parts = {}
    for split, kept in zip(("train", "val"), map(set, divide(names)), strict=True):
        part = {
            "images": [item for item in content["images"] if str(item["id"]) in kept],
            "annotations": [
                item for item in content["annotations"] if str(item.get("image_id")) in kept
            ],
        }
        parts[f"{split}.json"] = json.dumps({**content, **part})
    return parts


def _texts(train: Sequence[str], val: Sequence[str]) -> Texts:
    return {"train.txt": _text(train), "val.txt": _text(val)}


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
