"""Reader of COCO annotations: one JSON file of `images`, `annotations` and `categories`."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from flyweight.data.layouts.outlines import Outline, read_outline
from flyweight.data.problem_kinds import KindName
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError, nearest
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import MOST_ANNOTATION_BYTES, is_file, read_bytes
from flyweight.untrusted.json_values import parse_json

_MOST_SIDE = 2**31  # Pixels; a larger number is no size of an image.
_LISTS = ("images", "annotations", "categories")


def read_coco(
    root: str | os.PathLike[str],
    annotations: str,
    *,
    images: str | None = None,
    labels: Sequence[str] | None = None,
    masks: bool = False,
) -> BoxSet:
    """Read one annotation file. No image is opened.

    Invalid entries are left out and listed in `BoxSet.problems`. An annotation with `ignore`, which
    converters write for difficult objects of VOC, becomes a difficult object.

    Args:
        root: Folder of the set.
        annotations: The JSON file, relative to `root`.
        images: Folder of the images, relative to `root`; None tries the usual folders.
        labels: Class names; None means the categories in the order of their ids.
        masks: Also read the outlines of objects; objects without outline are left out.

    Raises:
        DataError: The file is missing or is not COCO JSON.
    """
    path = Path(root) / annotations
    content = _read_json(path)
    must, remedy = "COCO annotations must have usable values.", "Write the file again."
    with refusing(DataError, must, f"'{path}'", remedy):
        return _read(Path(root), path, content, images, labels, masks)


def _read(
    root: Path,
    path: Path,
    content: Mapping[str, list[Any]],
    images: str | None,
    labels: Sequence[str] | None,
    masks: bool,
) -> BoxSet:
    problems: list[Problem] = []
    names, indices = _categories(path, content["categories"], labels)
    by_id = _images(path, content["images"], problems)
    folder = _image_folder(root, path, images, by_id)
    by_image: dict[Any, list[_Row]] = {key: [] for key in by_id}
    for position, item in enumerate(content["annotations"]):
        row = _row(item, position, by_image, indices)
        kind: KindName = "invalid_annotation"
        if masks and isinstance(row, _Row):
            segmentation = item.get("segmentation")
            row = _outlined(row, segmentation)
            kind = "run_lengths" if isinstance(segmentation, dict) else kind
        if isinstance(row, str):
            message = f"annotations[{position}]: {row}"
            problems.append(Problem(path, None, message, kind=kind))
        else:
            by_image[item["image_id"]].append(row)
    records = [_record(folder, path, by_id[key], rows) for key, rows in by_image.items()]
    if masks:
        records = [_with_outlines(*pair) for pair in zip(records, by_image.values(), strict=True)]
    name = f"{root.name}/{path.stem}"
    return BoxSet(name, names, tuple(records), problems=tuple(problems), source=path)


@dataclass(frozen=True)
class _Row:
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    difficult: bool
    position: int
    stated: tuple[float, ...]
    outline: Outline | None = None


def _read_json(path: Path) -> dict[str, list[Any]]:
    must = "COCO annotations must be a readable file."
    remedy = "Check `root` and the path relative to it."
    with refusing(DataError, must, f"'{path}'", remedy):
        data = read_bytes(path, MOST_ANNOTATION_BYTES)
    must, remedy = "COCO annotations must be JSON.", "Write the file again."
    with refusing(DataError, must, f"'{path}'", remedy):
        content = parse_json(data)
    for name in _LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(
                f"COCO annotations must hold the lists {', '.join(_LISTS)}. "
                f"Received '{path}' without the list '{name}'. Check which file is named."
            )
    lists: dict[str, list[Any]] = content
    return lists


def _categories(
    path: Path, categories: list[Any], labels: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the class names, and {category id: index} for the categories among them."""
    named = [(item.get("id"), item.get("name")) for item in categories if isinstance(item, dict)]
    sound = all(isinstance(key, int) and isinstance(name, str) for key, name in named)
    if not sound or len(named) != len(categories):
        raise DataError(
            f"Every category must have an integer id and a name. Received {categories!r:.120} "
            f"in '{path}'. Correct them."
        )
    named.sort()
    if any(first[0] == second[0] for first, second in pairwise(named)):
        raise DataError(
            f"Every category must have an id of its own. Received {named!r:.120} in '{path}'. "
            "Correct them."
        )
    names = tuple(labels) if labels is not None else tuple(str(name) for _, name in named)
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"Every category must have a name of its own. Received {names!r:.120} in '{path}'. "
            "Correct them or give `labels`."
        )
    positions = {name: index for index, name in enumerate(names)}
    known = {str(name) for _, name in named}
    for name in names:
        if name not in known:
            raise DataError(
                f"Every label must be a category of '{path}'. Received '{name}'. "
                f"{nearest(name, known)}"
            )
    return names, {key: positions[name] for key, name in named if name in positions}


def _images(path: Path, images: list[Any], problems: list[Problem]) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for position, item in enumerate(images):
        reason = ""
        if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
            reason = f"an image must have an id and a file_name. Received {item!r:.80}. Add them."
        elif not isinstance(item.get("id"), int | str):
            reason = f"an image must have an id. Received {item.get('id')!r:.80}. Add it."
        elif item["id"] in found:
            reason = f"an image must have an id of its own. Received {item['id']} again. Change it."
        if reason:
            problems.append(Problem(path, None, f"images[{position}]: {reason}"))
        else:
            found[item["id"]] = item
    return found


def _image_folder(
    root: Path, path: Path, images: str | None, by_id: Mapping[Any, Mapping[str, Any]]
) -> Path:
    if images is not None:
        folder = root / images
        if not folder.is_dir():
            raise DataError(
                f"`images` must be a folder in '{root}'. Received '{images}'. Check the name."
            )
        return folder
    split = path.stem.removeprefix("instances_")
    candidates = [split, f"images/{split}", "images", "JPEGImages", "."]
    first = next((item["file_name"] for item in by_id.values()), "")
    # Last the folder of the file itself, where Roboflow puts the images of a split.
    folders = (*(root / name for name in candidates), path.parent)
    return next((folder for folder in folders if is_file(folder / first)), root / "images")


def _row(
    item: Any, position: int, known: Mapping[Any, object], indices: Mapping[Any, int]
) -> _Row | str:
    """Return one annotation, or the description of its problem."""
    if not isinstance(item, dict):
        return f"an annotation must be an object. Received {item!r:.80}. Correct it."
    image, category, box = item.get("image_id"), item.get("category_id"), item.get("bbox")
    if not isinstance(image, int | str) or image not in known:
        return f"image_id must name an image of the file. Received {image!r:.80}. Correct it."
    if not isinstance(category, int) or category not in indices:
        valid = ", ".join(str(key) for key in list(indices)[:12])
        return f"category_id must name a known category. Received {category!r:.80}. Valid: {valid}."
    if not _is_box(box):
        return (
            "bbox must be four numbers x, y, width, height. "
            f"Received {box!r:.80}. Correct or remove it."
        )
    x, y, width, height = (float(value) for value in box)
    area = item.get("area", width * height)
    if not _is_number(area) or not 0 <= area < math.inf:
        return f"area must be a number of pixels, at least 0. Received {area!r:.80}. Correct it."
    crowd, difficult = (bool(item.get(flag, 0)) for flag in ("iscrowd", "ignore"))
    corners = (x, y, x + width, y + height)
    stated = (x, y, width, height, float(area))
    return _Row(corners, indices[category], crowd, difficult, position, stated)


def _outlined(row: _Row, segmentation: Any) -> _Row | str:
    outline = read_outline(segmentation)
    if outline is None:
        return (
            "segmentation must be polygons of at least three points, or run lengths. "
            f"Received {segmentation!r:.80}. Correct or remove the object."
        )
    return replace(row, outline=outline)


def _with_outlines(record: BoxRecord, rows: list[_Row]) -> BoxRecord:
    return replace(record, outlines=tuple(row.outline for row in rows if row.outline is not None))


def _is_box(box: object) -> TypeGuard[list[float]]:
    return isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**53)


def _record(
    folder: Path, annotation: Path, image: Mapping[str, Any], rows: list[_Row]
) -> BoxRecord:
    return BoxRecord(
        path=folder / image["file_name"],
        height=_side(image.get("height")),
        width=_side(image.get("width")),
        boxes=as_boxes([row.box for row in rows]),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        difficult=np.array([row.difficult for row in rows], dtype=np.bool_),
        crowd=np.array([row.crowd for row in rows], dtype=np.bool_),
        lines=tuple(row.position for row in rows),
        annotation=annotation,
        positions=True,
        stated=np.array([row.stated for row in rows], dtype=np.float64).reshape(-1, 5),
    )


def _side(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < _MOST_SIDE else 0
