"""Names of the splits that a detection set has, as its layout names them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from flyweight.data.layouts.wider import split_name
from flyweight.data.layouts.yolo_txt import splits_of

USUAL = ("train", "val", "test")


def usual_splits(root: Path, layout: str) -> tuple[str, ...]:
    """Return the splits for training, validation and testing that a set has.

    Args:
        root: Folder of the set.
        layout: "voc", "coco", "wider" or "yolo".

    Returns:
        Values as `DataConfig.train` takes them. Where there are none, those that are missing, so
        that reading them names what is searched.
    """
    found = _FIND[layout](root)
    if "trainval" in found and "train" not in found:
        found = {"train": found["trainval"], **found}
    usual = tuple(found[name] for name in USUAL if name in found)
    return usual or tuple(_MISSING.get(layout, "{0}").format(name) for name in USUAL[:2])


_MISSING = {"coco": "annotations/instances_{0}.json"}


def _voc(root: Path) -> dict[str, str]:
    return {path.stem: path.stem for path in (root / "ImageSets" / "Main").glob("*.txt")}


def _coco(root: Path) -> dict[str, str]:
    """Return the annotation files by split; `instances_train2017.json` is of the split train."""
    paths = sorted((root / "annotations").glob("instances_*.json"))
    named = [(path.stem.removeprefix("instances_"), f"annotations/{path.name}") for path in paths]
    return {name.rstrip("0123456789"): path for name, path in named}


def _wider(root: Path) -> dict[str, str]:
    paths = (root / "wider_face_split").glob("wider_face_*_bbx_gt.txt")
    return {split_name(path): split_name(path) for path in paths}


def _yolo(root: Path) -> dict[str, str]:
    folders = [*(root / "images").glob("*/"), *(path.parent for path in root.glob("*/images/"))]
    named = (*splits_of(root), *(path.name for path in folders))
    return {name: name for name in named}


_FIND: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "voc": _voc,
    "coco": _coco,
    "wider": _wider,
    "yolo": _yolo,
}
