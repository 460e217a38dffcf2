"""Reader of the WIDER FACE layout: one text of all faces, images in a folder per event.

root/wider_face_split/wider_face_<split>_bbx_gt.txt
root/WIDER_<split>/images/<event>/<image>.jpg

The text contains for each image its path (`0--Parade/0_Parade_marchingband_1_849.jpg`), the number
of faces, and a row per face: `x y w h blur expression illumination invalid occlusion pose`. An
image without faces has the number 0 and one row of zeros (http://shuoyang1213.me/WIDERFACE).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flyweight.data.layouts.listing import lines_of
from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes
from flyweight.errors import DataError, nearest
from flyweight.untrusted.file_bytes import is_file

LABELS = ("face",)
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
_INVALID = 4 + ATTRIBUTES.index("invalid")


def read_wider(
    root: str | os.PathLike[str],
    split: str,
    *,
    images: str | None = None,
    labels: Sequence[str] | None = None,
) -> BoxSet:
    """Read one split. No image is opened.

    A face marked invalid becomes a difficult object. Invalid entries are left out and listed in
    `BoxSet.problems`. The published texts contain a few faces of zero width or height and a few
    repeated faces, which `check` reports: see `DataConfig.problems`.

    Args:
        root: Folder of the set.
        split: "train" or "val" for the published texts, or the path of a text relative to `root`.
        images: Folder of the events, relative to `root`; None tries the usual folders.
        labels: Name of the class; None means "face".

    Raises:
        DataError: The folder or the text is missing, the text is of something else, or more than
            one class is named.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(
            f"A WIDER set must be a folder. Received '{folder}', which is none. Check `root`."
        )
    names = tuple(labels) if labels is not None else LABELS
    if len(names) != 1:
        raise DataError(
            f"A WIDER set must have one class, its texts name none. Received {', '.join(names)}. "
            "Give one label or leave `labels` out."
        )
    source = _find_text(folder, split)
    problems: list[Problem] = []
    entries = list(_entries(source, problems))
    if entries and not any(entry.counted or entry.rows for entry in entries):
        raise DataError(
            "A WIDER text must have the number of faces below the path of every image. Received "
            f"'{source}' without any number. Give the text of the set, or set data.format."
        )
    image_folder = _image_folder(folder, source, images, entries)
    records = [_record(image_folder, source, entry) for entry in entries]
    name = f"{folder.name}/{split_name(source)}"
    return BoxSet(name, names, tuple(records), problems=tuple(problems), source=source)


def event_of(path: Path) -> str:
    """Return the event of an image, which is the name of its folder.

    Example:
        >>> event_of(Path("WIDER_val/images/0--Parade/0_Parade_marchingband_1_849.jpg"))
        '0--Parade'
    """
    return path.parent.name


@dataclass
class _Entry:
    """One image of the text: its path, the line of its name, and its rows with their lines."""

    image: str
    line: int
    counted: bool = False
    rows: list[tuple[float, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def _find_text(folder: Path, split: str) -> Path:
    published = folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    for candidate in (published, folder / split):
        if candidate.is_file():
            return candidate
    texts = [path.name for path in folder.glob("wider_face_split/*.txt")]
    known = [split_name(Path(name)) for name in texts]
    hint = nearest(split, known) if known else "There are no texts in that folder."
    raise DataError(
        f"A split must be a text '{published}' or a path relative to '{folder}'. "
        f"Received '{split}'. {hint}"
    )


def split_name(text: Path) -> str:
    """Return the split of a published text.

    Example:
        >>> split_name(Path("wider_face_train_bbx_gt.txt"))
        'train'
    """
    return text.stem.removeprefix("wider_face_").removesuffix("_bbx_gt")


def _entries(source: Path, problems: list[Problem]) -> Iterator[_Entry]:
    """Yield the images of a text. A line of four or more numbers is a row of a face."""
    lines = lines_of(source)
    entry: _Entry | None = None
    expected: float | None = None
    for number, text in enumerate(lines, start=1):
        line = text.strip()
        if not line:
            continue
        numbers = _numbers(line)
        if numbers is None:
            if entry is not None:
                yield _closed(source, entry, expected, problems)
            entry, expected = _Entry(line, number), None
        elif entry is None:
            # Numbers before the first path belong to no image.
            message = f"a text must begin with an image's path. Received '{line:.60}'. Add it."
            problems.append(Problem(source, number, message))
        elif len(numbers) == 1:
            if expected is not None:
                message = f"an image must have one count. Received {line} too. Remove it."
                problems.append(Problem(source, number, message))
            expected, entry.counted = numbers[0], True
        else:
            _add_row(source, entry, numbers, number, problems)
    if entry is not None:
        yield _closed(source, entry, expected, problems)


def _numbers(line: str) -> tuple[float, ...] | None:
    """Return the numbers of a line, or None if the line is the path of an image."""
    try:
        return tuple(float(word) for word in line.split())
    except ValueError:
        return None


def _add_row(
    source: Path,
    entry: _Entry,
    numbers: tuple[float, ...],
    line: int,
    problems: list[Problem],
) -> None:
    if len(numbers) not in (4, 4 + len(ATTRIBUTES)):
        message = (
            "a face must have four numbers x, y, w, h, alone or with six attributes. "
            f"Received {len(numbers)}. Correct or remove it."
        )
        problems.append(Problem(source, line, message))
    else:
        entry.rows.append(numbers)
        entry.lines.append(line)


def _closed(source: Path, entry: _Entry, expected: float | None, problems: list[Problem]) -> _Entry:
    found = len(entry.rows)
    if found == 1 and not any(entry.rows[0][:4]):
        # The published texts have this row for an image without faces; some count it, most do not.
        return _Entry(entry.image, entry.line, counted=True)
    if expected is None:
        message = f"an image must have a count of faces below it. Received {found} rows. Add it."
        problems.append(Problem(source, entry.line, message))
    elif expected != found:
        message = (
            f"the count must be that of the usable rows. Received {expected:g} where there are "
            f"{found} for '{entry.image}'. Correct it."
        )
        problems.append(Problem(source, entry.line + 1, message))
    return entry


def _image_folder(root: Path, source: Path, images: str | None, entries: Sequence[_Entry]) -> Path:
    if images is not None:
        folder = root / images
        if not folder.is_dir():
            raise DataError(
                f"`images` must be a folder in '{root}'. Received '{images}'. Check the name."
            )
        return folder
    split = split_name(source)
    candidates = [f"WIDER_{split}/images", f"{split}/images", f"images/{split}", "images", "."]
    first = next((entry.image for entry in entries), "")
    found = (root / name for name in candidates if is_file(root / name / first))
    return next(found, root / candidates[0])


def _record(folder: Path, source: Path, entry: _Entry) -> BoxRecord:
    count = len(entry.rows)
    boxes = [(x, y, x + w, y + h) for x, y, w, h, *_ in entry.rows]
    invalid = [len(row) > _INVALID and row[_INVALID] == 1 for row in entry.rows]
    return BoxRecord(
        path=folder / entry.image,
        height=0,
        width=0,
        boxes=as_boxes(boxes),
        labels=np.zeros(count, dtype=np.int64),
        difficult=np.array(invalid, dtype=np.bool_),
        crowd=np.zeros(count, dtype=np.bool_),
        lines=tuple(entry.lines),
        annotation=source,
    )
