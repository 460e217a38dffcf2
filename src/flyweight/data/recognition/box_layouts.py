"""Recognition of sets with boxes: VOC, COCO, WIDER FACE and YOLO."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flyweight.data.layouts.yolo_txt import label_path
from flyweight.data.recognition.folder import Folder
from flyweight.data.recognition.found import Found, of_splits
from flyweight.data.recognition.splits import split_of

_PAIR = re.compile(r"\S.*\.\w+\s+\S.*\.xml", re.IGNORECASE)
_YOLO_ROW = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}", re.IGNORECASE)
_OBJECT_NAME = re.compile(r"<object>.*?<name>\s*([^<]+?)\s*</name>", re.DOTALL)
_WIDER_TEXT = re.compile(r"wider_face_(\w+)_bbx_gt\.txt")
_NAMES_BLOCK = re.compile(r"^names:[ \t]*(\[[^\]]*\]|(?:\n[ \t]*(?:-|\d+:).*)+)", re.MULTILINE)
_YOLO_NAMES = ("classes.txt", "obj.names", "label_list.txt")


def voc(folder: Folder) -> Found | None:
    """Recognise XML files of boxes, with lists in `ImageSets/Main` or of lines `image xml`."""
    annotations = [
        path for path in folder.ending(".xml") if "<annotation" in folder.start_of(path)[:500]
    ]
    if not annotations:
        return None
    settings: dict[str, Any] = {"format": "voc"}
    notes: tuple[str, ...] = ()
    if "label_list.txt" not in folder.names:
        settings["labels"], notes = _voc_labels(folder, annotations)
        if not settings["labels"]:
            return None
    lists: dict[str, str] = {}
    for path in folder.ending(".txt"):
        if str(path.parent) == "ImageSets/Main" and path.stem == split_of(path.name):
            lists[path.stem] = path.stem
    for path in () if lists else folder.ending(".txt"):
        split = split_of(path.name)
        if split and any(map(_PAIR.fullmatch, folder.lines_of(path)[:5])):
            lists[split] = str(path)
    if lists:
        return of_splits(settings, lists, notes)
    lines = _voc_pairs(folder, annotations)
    return Found(settings, lines, notes=notes) if lines else None


def _voc_labels(
    folder: Folder, annotations: Iterable[PurePosixPath]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for name in ("labels.txt", "classes.txt"):
        if name in folder.names:
            return tuple(dict.fromkeys(folder.lines_of(name))), ()
    found = {name for path in annotations for name in _OBJECT_NAME.findall(folder.start_of(path))}
    return tuple(sorted(found)), ("the class names come from the annotations, sorted",)


def _voc_pairs(
    folder: Folder, annotations: Iterable[PurePosixPath]
) -> Mapping[str, tuple[str, ...]]:
    """Return lines `image xml` by split, for a set whose folders are its only structure."""
    by_stem: dict[str, list[PurePosixPath]] = {}
    for image in folder.images:
        by_stem.setdefault(image.stem, []).append(image)
    lines: dict[str, list[str]] = {}
    for path in annotations:
        # Of several images of one name, the one whose folders are most like those of the XML file.
        candidates = by_stem.get(path.stem, [])
        if candidates:
            image = max(candidates, key=lambda found: len({*found.parts} & {*path.parts}))
            lines.setdefault(split_of(path.parent) or "all", []).append(f"{image} {path}")
    return {split: tuple(found) for split, found in lines.items()}


def coco(folder: Folder) -> Found | None:
    """Recognise JSON files with `images`, `annotations` and `categories`, one per split."""
    files: dict[str, str] = {}
    for path in folder.ending(".json"):
        if _is_coco(folder, path) and len(path.parts) <= 3:
            files.setdefault(split_of(path) or "all", str(path))
    if not files:
        return None
    if [*files] == ["all"]:
        return Found({"format": "coco", "train": files["all"]})
    files.pop("all", None)
    return of_splits({"format": "coco"}, files)


def _is_coco(folder: Folder, path: PurePosixPath) -> bool:
    start = folder.start_of(path)
    if not start.lstrip().startswith("{") or path.name.startswith(("captions", "image_info")):
        return False
    try:
        with (folder.root / path).open("rb") as file:
            file.seek(max(0, (folder.root / path).stat().st_size - 65_536))
            text = start + file.read().decode("utf-8", "replace")
    except OSError:
        return False
    # Each of the long lists can hide one of the others from both ends of the file.
    return sum(f'"{key}"' in text for key in ("images", "annotations", "categories")) >= 2


def wider(folder: Folder) -> Found | None:
    """Recognise the texts of WIDER FACE."""
    texts: dict[str, str] = {}
    for path in folder.ending(".txt"):
        match = _WIDER_TEXT.fullmatch(path.name)
        split = split_of(match[1]) if match else None
        if match and split:
            usual = str(path.parent) == "wider_face_split"
            texts[split] = match[1] if usual else str(path)
    if not texts or not folder.images:
        return None
    return of_splits({"format": "wider"}, texts)


def yolo(folder: Folder) -> Found | None:
    """Recognise texts of boxes beside images, or in `labels` beside `images`."""
    labelled = [image for image in folder.images if str(label_path_of(image)) in folder.names]
    texts = [label_path_of(image) for image in labelled[:: max(1, len(labelled) // 200)]]
    rows = [line for text in texts for line in folder.lines_of(text)[:3]]
    if not rows or not all(map(_YOLO_ROW.fullmatch, rows)):
        return None
    settings: dict[str, Any] = {"format": "yolo"}
    notes: tuple[str, ...] = ()
    if "data.yaml" not in folder.names and not {*_YOLO_NAMES} & folder.names:
        settings["labels"], notes = _yolo_labels(folder, labelled)
    splits = _yolo_splits(folder)
    if splits:
        return of_splits(settings, splits, notes)
    return Found(settings, {"all": tuple(map(str, folder.images))}, notes=notes)


def label_path_of(image: PurePosixPath) -> PurePosixPath:
    """Return the text of an image, relative to the folder as the image is."""
    return PurePosixPath(label_path(image).as_posix())  # type: ignore[arg-type]  # pure


def _yolo_splits(folder: Folder) -> dict[str, str]:
    lists = {
        str(split_of(path.name)): str(path)
        for path in folder.ending(".txt")
        if len(path.parts) == 1
        and split_of(path.name)
        and any(line in folder.names for line in folder.lines_of(path)[:3])
    }
    if lists:
        return lists
    found: dict[str, str] = {}
    parents = dict.fromkeys(str(image.parent) for image in folder.images)
    for name in parents:
        split = split_of(f"{name}/x")
        if split:
            found.setdefault(split, name)
    return found


def _yolo_labels(
    folder: Folder, labelled: Iterable[PurePosixPath]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = _names_in_yaml(folder)
    if names:
        return names, ()
    last = 0
    for image in labelled:
        for line in folder.lines_of(label_path_of(image)):
            first = line.split(maxsplit=1)[0]
            last = max(last, int(first) if first.isdecimal() and len(first) < 5 else 0)
    note = "the set has no class names, so they are numbered; correct data.labels"
    return tuple(f"class_{index}" for index in range(last + 1)), (note,)


def _names_in_yaml(folder: Folder) -> tuple[str, ...]:
    """Return the class names of a data card with another name than `data.yaml`."""
    for path in folder.ending(".yaml", ".yml"):
        if len(path.parts) == 1:
            block = _NAMES_BLOCK.search(folder.start_of(path))
            if block:
                parts = block[1].strip("[]").split("," if block[1].startswith("[") else "\n")
                names = [re.sub(r"^\s*(-|\d+:)\s*", "", part).strip(" '\"\n") for part in parts]
                return tuple(dict.fromkeys(name for name in names if name))
    return ()
