"""Recognition of a folder by all layouts in order."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from flyweight.config.data import DataConfig
from flyweight.data.recognition import box_layouts, other_layouts
from flyweight.data.recognition.folder import Folder, read_folder
from flyweight.data.recognition.found import Found
from flyweight.data.recognition.splits import split_of
from flyweight.errors import DataError

LAYOUTS: Sequence[Callable[[Folder], Found | None]] = (
    other_layouts.cityscapes,
    box_layouts.voc,
    box_layouts.coco,
    box_layouts.wider,
    box_layouts.yolo,
    other_layouts.masks,
    other_layouts.class_list,
    other_layouts.imagefolder,
)
"""Layouts in the order in which they are tried; those with more evidence come first."""


def recognise(folder: Folder) -> tuple[Found, ...]:
    """Return all layouts that fit a folder, the best first. No image is opened."""
    candidates = (layout(folder) for layout in LAYOUTS)
    return tuple(found for found in candidates if found is not None)


def recognise_below(folder: Folder) -> tuple[Folder, tuple[Found, ...]]:
    """Return the layouts of a folder, or of the only folder below it that has some.

    Archives often have one more folder around the set.

    Raises:
        DataError: Neither has a layout, or several folders below have one.
    """
    inner = {name: found for name, found in _folders(folder).items() if found.images}
    below = {name: recognise(found) for name, found in inner.items()}
    fitting = [name for name, layouts in below.items() if layouts]
    whole = [name for name in fitting if not split_of(f"{name}/x") and not _by_folders(below[name])]
    found = recognise(folder)
    if len(whole) > 1 or (len(fitting) > 1 and not found):
        raise DataError(
            f"A folder must be one data set. Received '{folder.root}', which holds "
            f"{len(fitting)}: {', '.join(fitting[:12])}. Give one of them: "
            f"flyweight init {folder.root / fitting[0]}"
        )
    if found:
        return folder, found
    if not fitting:
        raise DataError(
            "A folder must have a layout that flyweight reads: boxes of VOC, COCO, WIDER FACE or "
            "YOLO, a folder per class, lists of images and classes, or images with label images. "
            f"Received '{folder.root}' with {len(folder.images):,} images in "
            f"{len(folder.files):,} files. docs/data.md describes the layouts."
        )
    return inner[fitting[0]], below[fitting[0]]


def other_layout(config: DataConfig, source: str) -> str | None:
    """Return the layout of a set where it is certainly another one than that of its config.

    A folder may have annotations in several layouts; then the layout is that of `source`.

    Args:
        config: Names a folder and a layout whose reader finds nothing in it.
        source: The split, as the config names it.
    """
    try:
        found = recognise(read_folder(config.root))
    except DataError:
        return None
    certain = [one for one in found if not _by_folders((one,))]
    if any(one.format == config.format for one in certain):
        certain = [one for one in certain if source in one.settings.values()]
        if any(one.format == config.format for one in certain):
            return None
    return certain[0].format if certain else None


def _by_folders(found: Sequence[Found]) -> bool:
    """Return whether nothing but folders of images supports the first layout."""
    return found[0].format in ("imagefolder", "class_list") and not found[0].settings.get("train")


def _folders(folder: Folder) -> dict[str, Folder]:
    files: dict[str, list[PurePosixPath]] = {}
    for path in folder.files:
        if len(path.parts) > 1:
            files.setdefault(path.parts[0], []).append(path.relative_to(path.parts[0]))
    return {name: Folder(folder.root / name, tuple(found)) for name, found in files.items()}
