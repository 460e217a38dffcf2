"""A config for a folder of images: recognised layout, survey, problems, proposal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.config.data import FORMATS
from flyweight.config.reading import load_config
from flyweight.data.check import check_both
from flyweight.data.recognition.folder import Folder, read_folder
from flyweight.data.recognition.found import Found
from flyweight.data.recognition.recognise import recognise_below
from flyweight.data.records import ImageSet, Problem
from flyweight.data.survey import Survey, survey
from flyweight.data.usable import leave_out_bad
from flyweight.errors import ConfigError, DataError, nearest
from flyweight.files import write_text
from flyweight.pipeline.data_check import Found as ProblemKind
from flyweight.pipeline.data_check import summary_of
from flyweight.pipeline.preflight import require_free, starter_path
from flyweight.pipeline.proposal import Proposal, propose
from flyweight.pipeline.starter_config import config_text
from flyweight.pipeline.starter_data import open_first


@dataclass(frozen=True)
class Started:
    """A config and what it is based on.

    Attributes:
        layout: The layout that was recognised.
        other_layouts: More layouts that the folder has.
        others: Splits that the config does not use.
        train: Survey of the training split.
        val: Survey of the validation split.
        problems: What is wrong with images and annotations.
        kinds: The problems, counted by kind.
        solved: Whether training starts in spite of them, because it does not need to stop, or
            because the config leaves bad images and boxes out.
        notes: Sentences on the choices.
        proposal: Network, input and training.
        files: Written files, the config last.
    """

    layout: str
    other_layouts: tuple[str, ...]
    others: tuple[str, ...]
    train: Survey
    val: Survey
    problems: tuple[Problem, ...]
    kinds: tuple[ProblemKind, ...]
    solved: bool
    notes: tuple[str, ...]
    proposal: Proposal
    files: tuple[Path, ...]


def start(
    root: Path, output: Path | None = None, *, layout: str = "", overwrite: bool = False
) -> Started:
    """Write a config for the data set in a folder.

    Args:
        root: The folder.
        output: File of the config; None means the folder's name with `.yaml` in the working folder.
        layout: Layout to use where the folder has several; "" means the first one that reads.
        overwrite: Replace existing files.

    Raises:
        DataError: The folder has no layout that flyweight reads, or nothing readable in it.
        ConfigError: The layout is not one that the folder has.
        FileError: A file exists, or cannot be written.
    """
    path = starter_path(root, output, overwrite=overwrite)
    folder, layouts = recognise_below(read_folder(root))
    opened = open_first(folder, _of_layout(layouts, layout, folder), path)
    require_free(opened.texts, overwrite=overwrite)
    surveys = survey(opened.train), survey(opened.val)
    problems, solved = _problems(opened.train, opened.val)
    leave_out = solved and any(problem.stops for problem in problems)
    data = {**opened.data, **({"problems": "leave_out"} if leave_out else {})}
    notes = list(opened.notes)
    absent = _without_images(surveys)
    if absent:
        notes.append(absent)
    task = next(task for task, formats in FORMATS.items() if data["format"] in formats)
    proposal = propose(task, str(data["format"]), surveys[0])
    text = config_text(path, proposal, data, surveys, notes)
    for extra, content in opened.texts.items():
        write_text(extra, content)
    write_text(path, text)
    load_config(str(path))  # What is written is read as a user would.
    return Started(
        layout=opened.found.format,
        other_layouts=tuple(each.format for each in layouts if each is not opened.found),
        others=opened.found.others,
        train=surveys[0],
        val=surveys[1],
        problems=problems,
        kinds=summary_of(problems),
        solved=solved,
        notes=tuple(notes),
        proposal=proposal,
        files=(*opened.texts, path),
    )


def _of_layout(layouts: Sequence[Found], layout: str, folder: Folder) -> Sequence[Found]:
    if not layout:
        return layouts
    fitting = [found for found in layouts if found.format == layout]
    if not fitting:
        raise ConfigError(
            f"--layout must be one that the folder has. Received '{layout}' for '{folder.root}'. "
            f"{nearest(layout, [found.format for found in layouts])}"
        )
    return fitting


def _problems(train: ImageSet, val: ImageSet) -> tuple[tuple[Problem, ...], bool]:
    """Return the problems of the splits, and whether leaving images and boxes out solves them."""
    first, second = check_both(train, val)
    problems = (*first, *second)
    if not any(problem.stops for problem in problems):
        return problems, True
    try:
        leave_out_bad(train, val)
    except DataError:
        return problems, False
    return problems, True


def _without_images(surveys: tuple[Survey, Survey]) -> str:
    """Return a sentence on classes that a split lacks; empty if there are none."""
    parts = []
    for split, found in zip(("training", "validation"), surveys, strict=True):
        absent = [name for name, count in found.counts.items() if not count]
        if absent:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            parts.append(f"{len(absent)} of {len(found.labels)} classes not in {split} ({shown})")
    return " and ".join(parts)
