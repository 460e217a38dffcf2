"""What a reader makes of a data set: plain frozen values that no image was opened for.

Boxes are xyxy in pixels of the upright image, exactly as the annotation file gives them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flyweight.data.layouts.outlines import Outline

Boxes = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def as_boxes(rows: Sequence[Sequence[float]]) -> Boxes:
    """Return the rows as `(n, 4)` float32, also where there are none.

    Example:
        >>> as_boxes([]).shape
        (0, 4)
    """
    with np.errstate(over="ignore"):  # What does not fit becomes inf, which `check` reports.
        return np.array(rows, dtype=np.float64).reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True)
class Problem:
    """Something that must be put right before training.

    Attributes:
        path: The image, annotation file or list at fault.
        line: Its line, where the file has lines that mean something.
        message: What must hold, what was received and what to do, on one line.
        record: The record at fault, where leaving it or one of its boxes out mends the set.
        box: The number of that box; None means the whole record.
    """

    path: Path
    line: int | None
    message: str
    record: Any = field(default=None, repr=False, compare=False)
    box: int | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, eq=False)
class BoxRecord:
    """The objects of one image.

    Attributes:
        path: Its file; None for an image made on the fly.
        height: In pixels, as the annotation says; 0 where it does not say.
        width: In pixels, likewise.
        boxes: xyxy, `(n, 4)` float32.
        labels: `(n,)` int64, indices into the labels of the set.
        difficult: `(n,)` bool.
        crowd: `(n,)` bool.
        lines: Where each box stands in `annotation`: its line in an XML file, its position in the
            `annotations` of a JSON file.
        annotation: The file that the boxes come from.
        positions: Whether `lines` holds positions instead of lines.
        outlines: One per box, see `outlines.masks_of`; None where they were not asked for.
    """

    path: Path | None
    height: int
    width: int
    boxes: Boxes
    labels: Labels
    difficult: Flags
    crowd: Flags
    lines: tuple[int, ...]
    annotation: Path
    positions: bool = False
    outlines: tuple[Outline, ...] | None = None

    def only(self, kept: Flags) -> "BoxRecord":
        """Return the same image with the boxes that `kept`, `(n,)`, says."""
        lines = tuple(compress(self.lines, kept))
        outlines = None if self.outlines is None else tuple(compress(self.outlines, kept))
        rows = {name: getattr(self, name)[kept] for name in ("boxes", "labels")}
        flags = {name: getattr(self, name)[kept] for name in ("difficult", "crowd")}
        return replace(self, **rows, **flags, lines=lines, outlines=outlines)

    def problem(self, box: int, message: str) -> Problem:
        """Return a problem with the box number `box` of this record."""
        if self.positions:
            place = f"annotations[{self.lines[box]}]"
            return Problem(self.annotation, None, f"{place}: {message}", self, box)
        # Files are often written on a single line, so the line alone does not find the object.
        return Problem(self.annotation, self.lines[box], f"object {box + 1}: {message}", self, box)


@dataclass(frozen=True, eq=False)
class ClassRecord:
    """The class of one image.

    Attributes:
        path: Its file; None for an image made on the fly.
        label: Index into the labels of the set.
        annotation: The list that names it, or the folder it lies in.
        line: Its line in that list; None for a folder.
        height: In pixels, where the annotation says; else 0.
        width: In pixels, likewise.
    """

    path: Path | None
    label: int
    annotation: Path
    line: int | None = None
    height: int = 0
    width: int = 0


@dataclass(frozen=True, eq=False)
class MapRecord:
    """The file that holds the class of every pixel of one image.

    Attributes:
        path: The image's file; None for an image made on the fly.
        map_path: The file of its labels; None for labels made on the fly.
        annotation: The list that names both, or the folder of the labels.
        line: Their line in that list; None for a folder.
        height: In pixels, where the annotation says; else 0.
        width: In pixels, likewise.
    """

    path: Path | None
    map_path: Path | None
    annotation: Path
    line: int | None = None
    height: int = 0
    width: int = 0


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set.

    Attributes:
        name: For messages and reports, e.g. "bccd/train".
        labels: Class names in the order of their indices.
        records: One per image.
        image: Makes image number `index` as `(height, width, 3)` uint8 RGB; None where images
            are files.
        problems: What the reader had to leave out; `check` reports it.
        source: The list or JSON file that names the images.
    """

    name: str
    labels: tuple[str, ...]
    records: tuple[Any, ...]
    image: Callable[[int], Pixels] | None = None
    problems: tuple[Problem, ...] = ()
    source: Path | None = None

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, eq=False)
class BoxSet(ImageSet):
    """One split of a detection set."""

    records: tuple[BoxRecord, ...]

    def without_difficult_flags(self) -> "BoxSet":
        """Return the set with every difficult object made an ordinary one."""
        records = (replace(r, difficult=np.zeros_like(r.difficult)) for r in self.records)
        return replace(self, records=tuple(records))


@dataclass(frozen=True, eq=False)
class ClassSet(ImageSet):
    """One split of a classification set."""

    records: tuple[ClassRecord, ...]


@dataclass(frozen=True, eq=False)
class MapSet(ImageSet):
    """One split of a segmentation set.

    Attributes:
        values: Pixel value in the label files to class index; values that it lacks are an error,
            `batch.IGNORE` says that a pixel does not count. None takes the values as they are.
        label_map: Makes the labels of image number `index` as `(height, width)` uint8; None where
            labels are files.
    """

    records: tuple[MapRecord, ...]
    values: Mapping[int, int] | None = None
    label_map: Callable[[int], Pixels] | None = None
