"""The splits of a recognised folder, opened with the settings that a config will have."""

from collections.abc import Iterable, Mapping, Sequence
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
    files = {path.absolute().with_name(f"{path.stem}_{end}"): text for end, text in texts.items()}
    splits = _opened(settings, files)
    if found.format == "masks":
        labels = None if unnamed else _listed_labels(folder)
        meaning, more = meaning_of(values_in(_map_files(splits)), labels)
        settings |= meaning
        notes += more
        splits = _opened(settings, files)
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


def _opened(settings: Mapping[str, Any], files: Mapping[Path, str]) -> Splits:
    """Open both splits; new lists are read from a temporary folder, before they are written."""
    with TemporaryDirectory() as folder:
        drafts = {Path(folder) / file.name: file for file in files}
        for draft, file in drafts.items():
            write_text(draft, files[file], durable=False)
        config = DataConfig.model_validate({**settings, **_named(drafts)})
        train, val = open_set(config, "train"), open_set(config, "val")
        return _placed(train, drafts), _placed(val, drafts)


def _placed(images: ImageSet, drafts: Mapping[Path, Path]) -> ImageSet:
    """Return a set that names its list by the list's final path."""
    records = [
        replace(record, annotation=drafts[record.annotation])
        if record.annotation in drafts
        else record
        for record in images.records
    ]
    problems = [
        replace(problem, path=drafts.get(problem.path, problem.path)) for problem in images.problems
    ]
    source = drafts.get(images.source, images.source) if images.source is not None else None
    return replace(images, records=tuple(records), problems=tuple(problems), source=source)


def _named(files: Iterable[Path]) -> dict[str, str]:
    return {file.stem.rpartition("_")[2]: str(file) for file in files}


def _map_files(splits: Splits) -> list[Path]:
    sets = [images for images in splits if isinstance(images, MapSet)]
    paths = (record.map_path for images in sets for record in images.records)
    return [path for path in paths if path is not None and path.is_file()]


def _listed_labels(folder: Folder) -> tuple[str, ...]:
    name = next(name for name in LABEL_FILES if name in folder.names)
    return read_labels(folder.root / name)
