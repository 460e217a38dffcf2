"""Reader of the YOLO layout: one text file of boxes per image, in a separate tree of folders.

root/images/<split>/<name>.jpg     root/labels/<split>/<name>.txt     root/data.yaml

A row is `class x y width height`, with centre and sides of the box as shares of the image sides. A
row of more numbers is an outline, `class x1 y1 x2 y2 ...`, whose enclosing box is used. An image
without text file has no objects. `data.yaml` names the classes and may name the folders of splits.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from flyweight.data.images import DECODER_ERRORS, image_size
from flyweight.data.layouts.voc import read_label_list
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
CARD = "data.yaml"
_NAME_LISTS = ("classes.txt", "obj.names", "label_list.txt")
_THREADS = 8
# Because of rounding, a corner may be slightly outside.
_MOST = 1.001


def read_yolo(
    root: str | os.PathLike[str], split: str, *, labels: Sequence[str] | None = None
) -> BoxSet:
    """Read one split. Of the images only the headers are read, for their sizes.

    Invalid entries are left out and listed in `BoxSet.problems`.

    Args:
        root: Folder of the set.
        split: A key of `data.yaml`, else the name of a folder of images (`images/<split>`,
            `<split>/images` or a path), or the path of a text that lists images; paths are
            relative to `root`.
        labels: Class names; None reads `data.yaml`, else `classes.txt` or `obj.names`.

    Raises:
        DataError: The folder, the split or the class names are missing.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(
            f"A YOLO set must be a folder. Received '{folder}', which is none. Check `root`."
        )
    card = _read_card(folder)
    names = tuple(labels) if labels is not None else _class_names(folder, card)
    source = _find_split(folder, split, card)
    images = _images(folder, source)
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = list(pool.map(_size, images))
    problems: list[Problem] = []
    records = [
        _record(image, size, len(names), problems)
        for image, size in zip(images, sizes, strict=True)
    ]
    name = f"{folder.name}/{Path(split).stem}"
    return BoxSet(name, names, tuple(records), problems=tuple(problems), source=source)


def label_path(image: Path) -> Path:
    """Return the text file of an image: in the folder `labels` beside the folder `images`.

    Example:
        >>> label_path(Path("set/images/train/a.jpg")).as_posix()
        'set/labels/train/a.txt'
        >>> label_path(Path("set/a.jpg")).as_posix()
        'set/a.txt'
    """
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f"'{path}' must be YAML. Received: {' '.join(str(error).split())}. Write it again."
        ) from error
    return card if isinstance(card, dict) else {}


def _class_names(folder: Path, card: dict[str, Any]) -> tuple[str, ...]:
    names = card.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if isinstance(names, list) and names and len({str(name) for name in names}) == len(names):
        return tuple(str(name) for name in names)
    if names is not None:
        raise DataError(
            f"`names` in '{folder / CARD}' must name every class once, from 0 on. "
            f"Received {names!r:.120}. Correct it."
        )
    found = next((folder / name for name in _NAME_LISTS if (folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"A YOLO set must name its classes. Received no '{folder / CARD}' with `names`, nor "
            f"{' or '.join(_NAME_LISTS)}. Write one, or give `labels`."
        )
    return read_label_list(found)


def _find_split(folder: Path, split: str, card: dict[str, Any]) -> Path:
    entry = card.get(split)
    candidates = [folder / "images" / split, folder / split / "images", folder / split]
    if isinstance(entry, str):
        # Tools write the path relative to their own working folder: `../train/images`.
        inside = [part for part in PurePosixPath(entry).parts if part not in ("..", ".", "/")]
        candidates = [folder / str(card.get("path", "")) / entry, folder.joinpath(*inside)]
    found = next((path for path in candidates if path.is_dir() or path.is_file()), None)
    if found is not None:
        return found
    known = [path.name for path in (folder / "images").glob("*") if path.is_dir()]
    known += [key for key in ("train", "val", "test") if key in card]
    hint = nearest(split, known) if known else "There are no folders in 'images'."
    raise DataError(
        f"A split must be a key of '{folder / CARD}', a folder of images or a list of them. "
        f"Received '{split}'. {hint}"
    )


def _images(folder: Path, source: Path) -> list[Path]:
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted(found)
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{source}' must be readable UTF-8 text. Received: {error}. Save it as UTF-8."
        ) from error
    return [folder / line.strip() for line in lines if line.strip()]


def _size(image: Path) -> tuple[int, int] | None:
    try:
        return image_size(image)
    except DECODER_ERRORS:
        return None  # `check` reports the problem.


@dataclass(frozen=True)
class _Row:
    label: int
    box: tuple[float, float, float, float]
    line: int


def _record(
    image: Path, size: tuple[int, int] | None, num_classes: int, problems: list[Problem]
) -> BoxRecord:
    path = label_path(image)
    height, width = size or (0, 0)
    rows = list(_rows(path, num_classes, problems)) if size is not None else []
    scale = np.array([width, height, width, height], dtype=np.float64)
    return BoxRecord(
        path=image,
        height=height,
        width=width,
        boxes=as_boxes([(np.array(row.box) * scale).tolist() for row in rows]),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        difficult=np.zeros(len(rows), dtype=np.bool_),
        crowd=np.zeros(len(rows), dtype=np.bool_),
        lines=tuple(row.line for row in rows),
        annotation=path,
    )


def _rows(path: Path, num_classes: int, problems: list[Problem]) -> Iterator[_Row]:
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(path, None, f"must be readable UTF-8 text. Received: {error}."))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, number, num_classes)
        if isinstance(row, str):
            problems.append(Problem(path, number, row))
        else:
            yield row


def _row(line: str, number: int, num_classes: int) -> _Row | str:
    """Return one row, or the description of its problem."""
    try:
        label, *values = (float(word) for word in line.split())
    except ValueError:
        return f"a row must hold numbers alone. Received '{line.strip():.60}'. Correct it."
    if not label.is_integer() or not 0 <= label < num_classes:
        return f"the class must be a whole number below {num_classes}. Received {label:g}."
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        return (
            "a row must be a class and four numbers, or a class and the corners of an outline. "
            f"Received {len(values)} numbers after the class. Correct it."
        )
    if any(abs(value) > _MOST for value in values):
        return (
            "a box must be given in shares of the image's sides, 0..1. "
            f"Received '{line.strip():.60}'. Divide by width and height."
        )
    if len(values) == 4:
        x, y, width, height = values
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        xs, ys = values[0::2], values[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    return _Row(int(label), box, number)
