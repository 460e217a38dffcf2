"""Reader of the Pascal VOC layout: one XML file per image, and one list of images per split.

root/ImageSets/Main/<split>.txt    one image name per line, or a list file of the lines
                                   `JPEGImages/x.jpg Annotations/x.xml`
root/Annotations/<name>.xml
root/JPEGImages/<name>.jpg
root/label_list.txt                one class name per line
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flyweight.data.layouts.listing import SUFFIXES, lines_of, read_labels
from flyweight.data.layouts.voc_xml import Annotation, AnnotationError, read_annotation
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError, nearest
from flyweight.untrusted.file_bytes import is_file

_PAIR = re.compile(r"(?P<image>.+\.\w+)\s+(?P<annotation>.+\.xml)", re.IGNORECASE)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    root: str | os.PathLike[str], split: str, *, labels: Sequence[str] | None = None
) -> BoxSet:
    """Read one split. No image is opened.

    Coordinates are those of the file, as in the originals: nothing is subtracted, although VOC
    counts from 1. Invalid entries are left out and listed in `BoxSet.problems`.

    Args:
        root: Folder of the set.
        split: Name of a list in `ImageSets/Main`, or the path of a list relative to `root`.
        labels: Class names; None reads `label_list.txt`.

    Raises:
        DataError: The folder, the list or the class names are missing.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(
            f"A VOC set must be a folder. Received '{folder}', which is none. Check `root`."
        )
    names = tuple(labels) if labels is not None else read_label_list(folder / "label_list.txt")
    source = _find_list(folder, split)
    indices = {name: index for index, name in enumerate(names)}
    images = _images_by_stem(folder / "JPEGImages")
    records: list[BoxRecord] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines_of(source), start=1):
        if not line:
            continue
        image, path = _resolve(folder, line, images)
        if not is_file(path):
            message = f"'{line}' must have an annotation. Received no file '{path}'. Add it."
            problems.append(Problem(source, number, message))
            continue
        try:
            annotation = read_annotation(path)
        except AnnotationError as error:
            problems.append(Problem(path, error.line, str(error)))
            continue
        record, bad = _record(image, path, annotation, indices)
        records.append(record)
        problems.extend(bad)
    name = f"{folder.name}/{Path(split).stem}"
    return BoxSet(name, names, tuple(records), problems=tuple(problems), source=source)


def read_label_list(path: Path) -> tuple[str, ...]:
    """Return the class names in `path`, one per line.

    Raises:
        DataError: The file is missing or empty, or names a class twice.
    """
    if not path.is_file():
        raise DataError(
            f"A VOC set must name its classes. Received no file '{path}'. "
            "Write one class name per line there, or give `labels`."
        )
    return read_labels(path)


def _find_list(folder: Path, split: str) -> Path:
    lists = folder / "ImageSets" / "Main"
    for candidate in (lists / f"{split}.txt", folder / split):
        if candidate.is_file():
            return candidate
    known = [path.stem for path in lists.glob("*.txt")]
    known += [path.name for path in folder.glob("*.txt") if path.name != "label_list.txt"]
    hint = nearest(split, known) if known else "There are no lists in this set."
    raise DataError(
        f"A split must be a list in '{lists}' or a path relative to '{folder}'. "
        f"Received '{split}'. {hint}"
    )


def _images_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    found = [Path(name) for name in names if name.lower().endswith(SUFFIXES)]
    # Among images of one name, the earliest suffix of the table is used.
    found.sort(key=lambda path: (-SUFFIXES.index(path.suffix.lower()), path.name))
    return {path.stem: folder / path for path in found}


def _resolve(folder: Path, line: str, images: Mapping[str, Path]) -> tuple[Path, Path]:
    pair = _PAIR.fullmatch(line)
    if pair is not None:
        return folder / pair["image"], folder / pair["annotation"]
    missing = folder / "JPEGImages" / f"{line}.jpg"
    return images.get(line, missing), folder / "Annotations" / f"{line}.xml"


def _record(
    image: Path, path: Path, annotation: Annotation, indices: Mapping[str, int]
) -> tuple[BoxRecord, list[Problem]]:
    problems: list[Problem] = []
    boxes: list[list[float]] = []
    labels: list[int] = []
    difficult: list[bool] = []
    lines: list[int] = []
    for number, item in enumerate(annotation.objects, start=1):
        name = item.text.get("name", "")
        corners = [_number(item.text.get(corner)) for corner in _CORNERS]
        reason = ""
        if name not in indices:
            reason = f"the class must be a known one. Received '{name}'. {nearest(name, indices)}"
        elif None in corners:
            received = ", ".join(f"{c}={item.text.get(c, 'nothing')}" for c in _CORNERS)
            reason = f"a box must have four numbers. Received {received}. Correct or remove it."
        if reason:
            problems.append(Problem(path, item.line, f"object {number}: {reason}"))
            continue
        boxes.append([corner for corner in corners if corner is not None])
        labels.append(indices[name])
        difficult.append(item.text.get("difficult", "0").strip() == "1")
        lines.append(item.line)
    record = BoxRecord(
        path=image,
        height=annotation.height,
        width=annotation.width,
        boxes=as_boxes(boxes),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=np.bool_),
        crowd=np.zeros(len(boxes), dtype=np.bool_),
        lines=tuple(lines),
        annotation=path,
    )
    return record, problems


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
