"""Readers of segmentation sets: images and, for each, an image of its labels.

root/images/<split>/**/x.jpg, root/masks/<split>/**/x.png    `masks`: folders with the same names,
root/<split>/images/x.jpg, root/<split>/masks/x.png          or the other way round,
root/<list>.txt                                              or a list of lines `image labels`, as
                                                             in PaddleX
root/leftImg8bit/<split>/<city>/x_leftImg8bit.png            `cityscapes`
root/gtFine/<split>/<city>/x_gtFine_labelIds.png
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flyweight.data.batch import IGNORE
from flyweight.data.layouts.listing import (
    find_list,
    images_below,
    labels_in,
    lines_of,
    require_folder,
)
from flyweight.data.records import MapRecord, MapSet, Problem
from flyweight.errors import DataError
from flyweight.untrusted.file_bytes import is_file

IMAGE_FOLDERS = ("images", "JPEGImages", "imgs")
MAP_FOLDERS = ("masks", "labels", "annotations", "Annotations", "SegmentationClass")
"""Folders in which images and their labels are searched."""

CITYSCAPES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Label ids of Cityscapes that its benchmark evaluates, in the order of the train ids."""

_CITYSCAPES_IDS = range(-1, 34)
_IMAGE_END, _MAP_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


def cityscapes_values() -> dict[int, int]:
    """Return {label id: train id}, with `IGNORE` for ids that the benchmark does not evaluate.

    The id -1 (licence plate) is 255 in files.

    Example:
        >>> values = cityscapes_values()
        >>> values[7], values[33], values[0], values[255]
        (0, 18, 255, 255)
    """
    counted = {label_id: index for index, label_id in enumerate(CITYSCAPES)}
    return {label_id % 256: counted.get(label_id, IGNORE) for label_id in _CITYSCAPES_IDS}


def read_maps(
    root: str | os.PathLike[str],
    split: str,
    *,
    labels: Sequence[str] | None = None,
    values: Mapping[int, int] | None = None,
) -> MapSet:
    """Read one split of images and label images. No image is opened.

    Args:
        root: Folder of the set.
        split: A list of lines `image labels`, both relative to `root`; or the name of a split
            whose images and label images have the same names but for their endings.
        labels: Class names; None reads `labels.txt` or `label_list.txt`.
        values: See `MapSet`.

    Raises:
        DataError: The folder, the split or the class names are missing.
    """
    folder = Path(root)
    require_folder(folder, "A segmentation set")
    names = tuple(labels) if labels is not None else labels_in(folder)
    _require_classes(len(names), values)
    source = _as_given(folder, split)
    if source is not None:
        records, problems = _listed(folder, source)
    else:
        source, maps = _folders(folder, split)
        records, problems = _paired(source, maps)
    return MapSet(
        f"{folder.name}/{Path(split).stem}",
        names,
        tuple(records),
        problems=tuple(problems),
        source=source,
        values=dict(values) if values is not None else None,
    )


def read_cityscapes(root: str | os.PathLike[str], split: str) -> MapSet:
    """Read one split in the layout of Cityscapes (fine annotations). No image is opened.

    Args:
        root: Folder with `leftImg8bit` and `gtFine`.
        split: "train" or "val".

    Raises:
        DataError: A folder is missing.
    """
    folder = Path(root)
    images, maps = folder / "leftImg8bit" / split, folder / "gtFine" / split
    for path in (images, maps):
        require_folder(path, f"The split '{split}' of Cityscapes")
    records: list[MapRecord] = []
    problems: list[Problem] = []
    for path in images_below(images):
        if not path.name.endswith(_IMAGE_END):
            continue
        name = path.name.removesuffix(_IMAGE_END) + _MAP_END
        map_path = maps / path.parent.relative_to(images) / name
        if is_file(map_path):
            records.append(MapRecord(path, map_path, maps))
        else:
            problems.append(_no_map(path, map_path))
    labels = tuple(CITYSCAPES.values())
    return MapSet(
        f"{folder.name}/{split}",
        labels,
        tuple(records),
        problems=tuple(problems),
        source=images,
        values=cityscapes_values(),
    )


def _require_classes(count: int, values: Mapping[int, int] | None) -> None:
    if count > IGNORE:
        raise DataError(
            f"A segmentation set must have at most {IGNORE} classes, because {IGNORE} stands for "
            f"pixels without class. Received {count}. Merge classes, or give fewer `labels`."
        )
    for value, index in (values or {}).items():
        if not 0 <= index < count and index != IGNORE:
            raise DataError(
                f"data.values must give indices of classes, 0..{count - 1}, or {IGNORE} for pixels "
                f"without class. Received {value}: {index}. Correct it."
            )


def _as_given(folder: Path, split: str) -> Path | None:
    """Return the list file for `split`. Folders of this name precede files with another ending."""
    if (folder / split).is_file():
        return folder / split
    return None if _find_folders(folder, split) else find_list(folder, split)


def _find_folders(folder: Path, split: str) -> tuple[Path, Path] | None:
    for inner in ("{0}/{1}", "{1}/{0}"):
        images = [folder / inner.format(name, split) for name in IMAGE_FOLDERS]
        maps = [folder / inner.format(name, split) for name in MAP_FOLDERS]
        found = [next((path for path in paths if path.is_dir()), None) for paths in (images, maps)]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _folders(folder: Path, split: str) -> tuple[Path, Path]:
    found = _find_folders(folder, split)
    if found is None:
        lists = ", ".join(sorted(path.name for path in folder.glob("*.txt")))
        raise DataError(
            f"A split must be a list in '{folder}' or have folders 'images/{split}' and "
            f"'masks/{split}'. Received '{split}'. Lists there: {lists or 'none'}."
        )
    return found


def _listed(folder: Path, source: Path) -> tuple[list[MapRecord], list[Problem]]:
    records: list[MapRecord] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines_of(source), start=1):
        # A tab lets names have spaces.
        parts = line.split("\t") if "\t" in line else line.split()
        if not parts:
            continue
        if len(parts) != 2:
            message = f"a line must read 'image labels'. Received '{line}'. Correct or remove it."
            problems.append(Problem(source, number, message))
            continue
        image, labels = (folder / part for part in parts)
        records.append(MapRecord(image, labels, source, number))
    return records, problems


def _paired(images: Path, maps: Path) -> tuple[list[MapRecord], list[Problem]]:
    by_name = {_stem(path, maps): path for path in images_below(maps)}
    records: list[MapRecord] = []
    problems: list[Problem] = []
    for path in images_below(images):
        map_path = by_name.pop(_stem(path, images), None)
        if map_path is None:
            problems.append(_no_map(path, maps / path.relative_to(images).with_suffix(".png")))
        else:
            records.append(MapRecord(path, map_path, maps))
    for map_path in by_name.values():
        message = (
            f"labels must belong to an image. Received none of this name in '{images}'. "
            "Add the image or remove the labels."
        )
        problems.append(Problem(map_path, None, message, kind="missing_label_image"))
    return records, problems


def _stem(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))


def _no_map(path: Path, wanted: Path) -> Problem:
    message = f"an image must have labels. Received no file '{wanted}'. Add it or remove the image."
    return Problem(path, None, message, kind="missing_label_image")
