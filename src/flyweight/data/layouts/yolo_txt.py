"""Reader of the YOLO layout: one text file of boxes per image, in a separate tree of folders.

root/images/<split>/<name>.jpg     root/labels/<split>/<name>.txt     root/data.yaml

A row is `class x y width height`, with centre and sides of the box as shares of the image sides. A
row of more numbers is an outline, `class x1 y1 x2 y2 ...`, whose enclosing box is used. If
`data.yaml` has `kpt_shape`, points follow the box instead, and are not used. An image without text
file has no objects. `data.yaml` names the classes and may name the folders of splits.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flyweight.data.images import DECODER_ERRORS, image_size
from flyweight.data.layouts.listing import lines_of
from flyweight.data.layouts.voc import read_label_list
from flyweight.data.problem_kinds import KindName
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError, nearest
from flyweight.untrusted.failures import reason_of, refusing
from flyweight.untrusted.file_bytes import is_file, is_folder, read_text
from flyweight.untrusted.yaml_values import parse_yaml

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
CARD = "data.yaml"
SPLITS = ("train", "val", "test")
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
    layout = _RowLayout(len(names), _numbers_of_points(folder, card))
    sources = _find_split(folder, split, card)
    found = (image for source in sources for image in _images(folder, source))
    images = list(dict.fromkeys(found)) if len(sources) > 1 else list(found)
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = list(pool.map(_size, images))
    problems: list[Problem] = []
    records = [
        _record(image, size, layout, problems) for image, size in zip(images, sizes, strict=True)
    ]
    problems += _texts_without_image(sources, images)
    name = f"{folder.name}/{Path(split).stem}"
    source = sources[0] if len(sources) == 1 else folder / CARD
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


def splits_of(folder: Path) -> tuple[str, ...]:
    """Return the splits that `data.yaml` names, of those in `SPLITS`.

    Raises:
        DataError: It is no YAML.
    """
    card = _read_card(folder)
    return tuple(name for name in SPLITS if card.get(name))


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        return {}
    with refusing(DataError, f"'{path}' must be YAML.", "", "Write it again."):
        card = parse_yaml(read_text(path))
    return card if isinstance(card, dict) else {}


def _class_names(folder: Path, card: dict[str, Any]) -> tuple[str, ...]:
    names = card.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
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


def _numbers_of_points(folder: Path, card: dict[str, Any]) -> int:
    """Return how many numbers of points follow the box in a row, by `kpt_shape`; 0 without it."""
    shape = card.get("kpt_shape")
    if shape is None:
        return 0
    whole = isinstance(shape, list) and [type(value) for value in shape] == [int, int]
    if not whole or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(
            f"`kpt_shape` in '{folder / CARD}' must be [number of points, 2 or 3]. "
            f"Received {shape!r:.60}. Correct it."
        )
    return int(shape[0] * shape[1])


def _find_split(folder: Path, split: str, card: dict[str, Any]) -> tuple[Path, ...]:
    """Return the folders of images, and lists of them, that a split consists of."""
    entry = card.get(split)
    if isinstance(entry, list) and entry:
        return tuple(_entry_of(folder, split, card, item) for item in entry)
    candidates = [folder / "images" / split, folder / split / "images", folder / split]
    if isinstance(entry, str):
        candidates = _candidates(folder, card, entry)
    found = _first(candidates)
    if found is not None:
        return (found,)
    known = [path.name for path in (folder / "images").glob("*") if path.is_dir()]
    known += [key for key in SPLITS if key in card]
    hint = nearest(split, known) if known else "There are no folders in 'images'."
    raise DataError(
        f"A split must be a key of '{folder / CARD}', a folder of images or a list of them. "
        f"Received '{split}'. {hint}"
    )


def _entry_of(folder: Path, split: str, card: dict[str, Any], item: object) -> Path:
    found = _first(_candidates(folder, card, item)) if isinstance(item, str) else None
    if found is None:
        raise DataError(
            f"Every entry of `{split}` in '{folder / CARD}' must be a folder of images or a list "
            f"of them. Received {item!r:.80}, which is none. Correct or remove it."
        )
    return found


def _candidates(folder: Path, card: dict[str, Any], entry: str) -> list[Path]:
    # Tools write the path relative to their own working folder: `../train/images`.
    inside = [part for part in PurePosixPath(entry).parts if part not in ("..", ".", "/")]
    return [folder / str(card.get("path") or "") / entry, folder.joinpath(*inside)]


def _first(candidates: list[Path]) -> Path | None:
    return next((path for path in candidates if is_folder(path) or is_file(path)), None)


def _images(folder: Path, source: Path) -> list[Path]:
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        # Hidden files are left-overs of programs: drafts of flyweight 0.1.0, `._NAME` of macOS.
        return sorted(path for path in found if not path.name.startswith("."))
    return [folder / line for line in lines_of(source) if line]


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


@dataclass(frozen=True)
class _RowLayout:
    """What a row may hold: the number of classes, and of numbers of points that follow the box."""

    classes: int
    points: int


def _record(
    image: Path, size: tuple[int, int] | None, layout: _RowLayout, problems: list[Problem]
) -> BoxRecord:
    path = label_path(image)
    height, width = size or (0, 0)
    rows = list(_rows(image, layout, problems)) if size is not None else []
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


def _texts_without_image(sources: Iterable[Path], images: Iterable[Path]) -> Iterator[Problem]:
    """Yield the label files beside folders of images that belong to no image."""
    known = {label_path(image) for image in images}
    folders = [label_path(source / "any.jpg").parent for source in sources if source.is_dir()]
    apart = [folder for folder in folders if folder not in sources and folder.is_dir()]
    for path in sorted({path for folder in apart for path in folder.rglob("*.txt")} - known):
        if path.name not in _NAME_LISTS:
            message = "a label file should belong to an image. Received none of this name. Add it."
            yield Problem(path, None, message, kind="label_file_without_image")


def _rows(image: Path, layout: _RowLayout, problems: list[Problem]) -> Iterator[_Row]:
    path = label_path(image)
    if not is_file(path):
        message = (
            f"an image should have a label file. Received no '{path}', so it counts as an image "
            "without objects. Add the file; an empty one if there are none."
        )
        problems.append(Problem(image, None, message, kind="missing_label_file"))
        return
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error)
        problems.append(Problem(path, None, f"must be readable UTF-8 text. Received: {reason}."))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, number, layout)
        if isinstance(row, _Row):
            yield row
        else:
            problems.append(Problem(path, number, row[1], kind=row[0]))


def _row(line: str, number: int, layout: _RowLayout) -> _Row | tuple[KindName, str]:
    """Return one row, or kind and description of its problem."""
    try:
        label, *values = (float(word) for word in line.split())
    except ValueError:
        reason = f"a row must hold numbers alone. Received '{line.strip():.60}'. Correct it."
        return "invalid_annotation", reason
    if not label.is_integer() or not 0 <= label < layout.classes:
        reason = f"the class must be a whole number below {layout.classes}. Received {label:g}."
        return "invalid_annotation", reason
    problem = _problem_of(values, layout.points)
    if problem is not None:
        return problem
    if len(values) == 4 or layout.points:
        x, y, width, height = values[:4]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        xs, ys = values[0::2], values[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    return _Row(int(label), box, number)


def _problem_of(values: list[float], points: int) -> tuple[KindName, str] | None:
    """Return kind and description of the problem of the numbers after a class, if any."""
    count = len(values)
    if points and count not in (4, 4 + points):
        return "invalid_annotation", (
            f"a row must be a class and 4 or {4 + points} numbers, as kpt_shape says. "
            f"Received {count} numbers after the class. Correct it."
        )
    if not points and _has_visibilities(values):
        return "keypoint_rows", (
            f"a row of a box and points needs kpt_shape in {CARD}. Received {count} numbers after "
            f"the class. Add for example: kpt_shape: [{(count - 4) // 3}, 3]"
        )
    if not points and count != 4 and (count < 6 or count % 2):
        return "invalid_annotation", (
            "a row must be a class and four numbers, or a class and the corners of an outline. "
            f"Received {count} numbers after the class. Correct it."
        )
    if any(abs(value) > _MOST for value in values[: 4 if points else count]):
        given = " ".join(f"{value:g}" for value in values)
        return "invalid_annotation", (
            "a box must be given in shares of the image's sides, 0..1. "
            f"Received '{given:.60}'. Divide by width and height."
        )
    return None


def _has_visibilities(values: list[float]) -> bool:
    """Return whether a row is a box and points, each with a visibility of 0, 1 or 2."""
    box, points, flags = values[:4], values[4:], values[6::3]
    if len(points) < 3 or len(points) % 3 or not set(flags) <= {0, 1, 2}:
        return False
    # An outline has an even count of numbers, all up to 1.
    shares = [value for index, value in enumerate(points) if index % 3 != 2]
    certain = len(values) % 2 == 1 or 2 in flags
    return certain and all(abs(value) <= _MOST for value in (*box, *shares))
