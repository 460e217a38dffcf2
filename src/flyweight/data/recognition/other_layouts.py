"""Recognition of sets with a class per image, or a class per pixel."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flyweight.data.layouts.listing import LABEL_FILES, SUFFIXES
from flyweight.data.layouts.map_sets import IMAGE_FOLDERS, MAP_FOLDERS
from flyweight.data.recognition.folder import Folder
from flyweight.data.recognition.found import Found, of_splits
from flyweight.data.recognition.splits import split_of

_MAP_WORDS = frozenset(
    {
        *("mask", "masks", "label", "labels", "annot", "annots", "annotation", "annotations", "gt"),
        *("groundtruth", "seg", "segmentation", "segmentations", "segmentationclass", "target"),
        "targets",
    }
)
_IMAGE_WORDS = frozenset({"images", "img", "imgs", "jpegimages", "leftimg", "gtfine"})
_JOINED = re.compile(rf"(train|val|test)({'|'.join(sorted(_MAP_WORDS))})")
_ENDINGS = "|".join(re.escape(suffix) for suffix in SUFFIXES)
_TWO_IMAGES = re.compile(rf"(\S+(?:{_ENDINGS}))\s+(\S+(?:{_ENDINGS}))", re.IGNORECASE)
_IMAGE_CLASS = re.compile(rf"(.+(?:{_ENDINGS}))\s+(\S+)", re.IGNORECASE)
_IMAGE_FILE = re.compile(rf"(\S+(?:{_ENDINGS}))\s+(\S+(?:{_ENDINGS}|\.xml))", re.IGNORECASE)
_CLASS_LINE = re.compile(r"(\d+)[\s,:]+(\S.*)")


def cityscapes(folder: Folder) -> Found | None:
    """Recognise `leftImg8bit` and `gtFine`."""
    splits = {
        name: name
        for name in ("train", "val", "test")
        if {f"leftImg8bit/{name}", f"gtFine/{name}"} <= folder.folders
    }
    if "train" not in splits or "val" not in splits:
        return None
    return Found({"format": "cityscapes", "train": "train", "val": "val"})


def masks(folder: Folder) -> Found | None:
    """Recognise images and label images: by lists, by folders of splits, or by their names."""
    settings: dict[str, Any] = {"format": "masks"}
    lists = _lists(folder, _TWO_IMAGES)
    if lists:
        return of_splits(settings, lists)
    folders = {
        str(split_of(f"{inner}/x")): inner
        for inner in _split_names(folder)
        if _pairs_of_reader(folder, inner)
    }
    if folders:
        return of_splits(settings, folders)
    lines = _map_pairs(folder)
    if not lines:
        return None
    return Found(settings, lines)


def class_list(folder: Folder) -> Found | None:
    """Recognise lists of lines `image class`."""
    lists = _lists(folder, _IMAGE_CLASS, without=_IMAGE_FILE)
    if not lists:
        return None
    settings: dict[str, Any] = {"format": "class_list"}
    notes: tuple[str, ...] = ()
    if not {*LABEL_FILES} & folder.names:
        settings["labels"], notes = _list_labels(folder, lists.values())
    return of_splits(settings, lists, notes)


def imagefolder(folder: Folder) -> Found | None:
    """Recognise a folder per class, in folders of splits or without splits."""
    classes: dict[str, set[str]] = {}
    for image in folder.images:
        if len(image.parts) >= 3 and split_of(f"{image.parts[0]}/x"):
            classes.setdefault(image.parts[0], set()).add(image.parts[1])
    splits = {
        str(split_of(f"{name}/x")): name
        for name, inner in classes.items()
        if len(inner) > 1 and not all(map(is_of_layout, inner))
    }
    loose = [image for image in folder.images if len(image.parts) == 1]
    if splits:
        return of_splits({"format": "imagefolder"}, splits)
    names = sorted({image.parts[0] for image in folder.images if len(image.parts) > 1})
    plain = [name for name in names if not is_of_layout(name)]
    if len(names) < 2 or plain != names or len(loose) > len(folder.images) // 10:
        return None
    index = {name: place for place, name in enumerate(names)}
    lines = tuple(
        f"{image} {image.parts[0] if len(image.parts[0].split()) == 1 else index[image.parts[0]]}"
        for image in folder.images
        if len(image.parts) > 1
    )
    return Found({"format": "class_list", "labels": tuple(names)}, {"all": lines})


def is_of_layout(name: str) -> bool:
    """Return whether a folder's name is that of a split, of images or of labels, not of a class."""
    words = {*_words(name)}
    return bool(words & {*_MAP_WORDS, *_IMAGE_WORDS}) or split_of(f"{name}/x") is not None


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case; `trainannot` has two."""
    found = [part.lower() for part in re.findall(r"[A-Za-z]+", name)]
    joined = [_JOINED.fullmatch(part) for part in found]
    return [
        part
        for whole, match in zip(found, joined, strict=True)
        for part in (match.groups() if match else (whole,))
    ]


def _lists(
    folder: Folder, line: re.Pattern[str], *, without: re.Pattern[str] | None = None
) -> dict[str, str]:
    """Return the lists in the root whose first lines have the form `line` and name images."""
    lists: dict[str, str] = {}
    for path in folder.ending(".txt"):
        split = split_of(path.name)
        if len(path.parts) > 1 or split is None:
            continue
        matches = [line.fullmatch(text) for text in folder.lines_of(path)[:5]]
        fits = bool(matches) and all(matches)
        if fits and without is not None:
            fits = not any(map(without.fullmatch, folder.lines_of(path)[:5]))
        if fits and any(match and match[1] in folder.names for match in matches):
            lists.setdefault(split, path.name)
    return lists


def _list_labels(folder: Folder, lists: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class names from a text of lines `index name`, else from the lists themselves."""
    for path in folder.ending(".txt", ".names"):
        lines = folder.lines_of(path)
        matches = [_CLASS_LINE.fullmatch(line) for line in lines]
        numbers = [int(match[1]) for match in matches if match]
        if len(numbers) > 1 and numbers == [*range(len(lines))]:
            names = tuple(match[2] for match in matches if match)
            if len({*names}) == len(names):
                return _short_names(names), (f"the class names come from {path}",)
    given = {
        match[2]
        for name in lists
        for line in (folder.root / name).read_text("utf-8-sig", "replace").splitlines()
        if (match := _IMAGE_CLASS.fullmatch(line.strip()))
    }
    if all(name.isdecimal() and len(name) < 6 for name in given):
        note = "the set has no class names, so they are numbered; correct data.labels"
        count = max(map(int, given)) + 1
        return tuple(f"class_{index}" for index in range(count)), (note,)
    return tuple(sorted(given)), ("the class names come from the lists, sorted",)


def _short_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last words, such as `tench` of `n01440764 tench`, where they differ."""
    last = tuple(name.split()[-1] for name in names)
    return last if len({*last}) == len(last) else names


def _split_names(folder: Folder) -> list[str]:
    names = {part for name in folder.folders for part in PurePosixPath(name).parts}
    return sorted(name for name in names if split_of(f"{name}/x"))


def _pairs_of_reader(folder: Folder, split: str) -> bool:
    """Return whether the reader of `masks` finds the folders of a split."""
    return any(
        inner.format(images, split) in folder.image_folders
        and any(inner.format(maps, split) in folder.image_folders for maps in MAP_FOLDERS)
        for inner in ("{0}/{1}", "{1}/{0}")
        for images in IMAGE_FOLDERS
    )


def _map_pairs(folder: Folder) -> Mapping[str, tuple[str, ...]]:
    """Return lines `image labels` by split, for images and label images with like names."""
    maps: dict[str, list[PurePosixPath]] = {}
    plain: list[PurePosixPath] = []
    for path in folder.images:
        if {*_words(str(path.parent))} & _MAP_WORDS or {*_words(path.stem)[-1:]} & _MAP_WORDS:
            maps.setdefault(_bare(path.stem), []).append(path)
        else:
            plain.append(path)
    lines: dict[str, list[str]] = {}
    for image in plain:
        candidates = maps.get(_bare(image.stem), [])
        if candidates:
            found = max(candidates, key=lambda path: len({*path.parts} & {*image.parts}))
            gap = "\t" if " " in f"{image}{found}" else " "
            split = split_of(image.parent / "x") or "all"
            lines.setdefault(split, []).append(f"{image}{gap}{found}")
    return {split: tuple(found) for split, found in lines.items()}


def _bare(stem: str) -> str:
    """Return the name that an image and its labels share: `cat_1` of `cat_1_mask`."""
    words = re.split(r"(?<=[A-Za-z0-9])[_\-. ](?=[A-Za-z]+$)", stem)
    return words[0] if len(words) == 2 and words[1].lower() in _MAP_WORDS else stem
