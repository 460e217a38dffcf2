"""The splits of a recognised folder, opened with the settings that a config will have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flyweight.config.data import DataConfig
from flyweight.data.layouts.listing import LABEL_FILES, read_labels
from flyweight.data.loading import open_set
from flyweight.data.recognition.division import divided_split, listed_splits
from flyweight.data.recognition.folder import Folder
from flyweight.data.recognition.found import Found
from flyweight.data.recognition.map_values import meaning_of, values_in
from flyweight.data.records import ImageSet, MapSet
from flyweight.errors import DataError
from flyweight.files import write_text

Splits = tuple[ImageSet, ImageSet]


@dataclass(frozen=True)
class Opened:
    """A layout whose splits have been read.

    Attributes:
        found: The layout.
        data: Section `data` of a config.
        train: The training split.
        val: The validation split.
        texts: Files that the section names and that do not exist yet, with their content.
        notes: Sentences on the choices.
    """

    found: Found
    data: Mapping[str, Any]
    train: ImageSet
    val: ImageSet
    texts: Mapping[Path, str]
    notes: tuple[str, ...]


def open_first(folder: Folder, layouts: Sequence[Found], path: Path) -> Opened:
    """Return the first layout whose splits can be read.

    Args:
        folder: The set.
        layouts: Its layouts, at least one.
        path: File of the config; new lists get names beside it.

    Raises:
        DataError: No layout can be read; the error is that of the first.
    """
    errors: list[DataError] = []
    for found in layouts:
        try:
            return _open(replace(folder, root=folder.root.absolute()), found, path)
        except DataError as error:
            errors.append(error)
    raise errors[0]


def _open(folder: Folder, found: Found, path: Path) -> Opened:
    settings: dict[str, Any] = {**found.settings, "root": str(folder.root)}
    unnamed = found.format == "masks" and not {*LABEL_FILES} & folder.names
    if unnamed:
        settings["labels"] = ("object",)  # Until the values of the label images are known.
    texts, notes = _new_lists(folder, found, settings)
    if texts and found.format == "imagefolder":
        settings = {"format": "class_list", "root": settings["root"], "labels": _labels(settings)}
    splits = _opened(settings, texts)
    if found.format == "masks":
        labels = None if unnamed else _listed_labels(folder)
        meaning, more = meaning_of(values_in(_map_files(splits)), labels)
        settings |= meaning
        notes += more
        splits = _opened(settings, texts)
    files = {path.absolute().with_name(f"{path.stem}_{end}"): text for end, text in texts.items()}
    settings |= _named(files)
    order = ("format", "root", "train", "val", "labels", "values")
    data = {key: settings[key] for key in order if key in settings}
    return Opened(found, data, *splits, files, (*found.notes, *notes))


def _new_lists(
    folder: Folder, found: Found, settings: Mapping[str, Any]
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the lists that the set lacks, by the endings of their names, and notes."""
    if "train" not in settings:
        return listed_splits(found)
    if "val" not in settings:
        return divided_split(found, open_set(DataConfig.model_validate(settings), "train"), folder)
    return {}, ()


def _labels(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return open_set(DataConfig.model_validate(settings), "train").labels


def _opened(settings: Mapping[str, Any], texts: Mapping[str, str]) -> Splits:
    """Open both splits; new lists are read from a temporary folder, before they are written."""
    with TemporaryDirectory() as drafts:
        files = {Path(drafts) / end: text for end, text in texts.items()}
        for file, text in files.items():
            write_text(file, text, durable=False)
        config = DataConfig.model_validate({**settings, **_named(files)})
        return open_set(config, "train"), open_set(config, "val")


def _named(files: Mapping[Path, str]) -> dict[str, str]:
    return {file.stem.rpartition("_")[2]: str(file) for file in files}


def _map_files(splits: Splits) -> list[Path]:
    sets = [images for images in splits if isinstance(images, MapSet)]
    paths = (record.map_path for images in sets for record in images.records)
    return [path for path in paths if path is not None and path.is_file()]


def _listed_labels(folder: Folder) -> tuple[str, ...]:
    name = next(name for name in LABEL_FILES if name in folder.names)
    return read_labels(folder.root / name)
