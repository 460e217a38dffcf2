"""Records of a data set, as frozen values that readers return without opening images.

Boxes are xyxy in pixels of the upright image, exactly as in the annotation file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flyweight.data.layouts.outlines import Outline
from flyweight.data.problem_kinds import KINDS, KindName
from flyweight.printable import printable

Boxes = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def as_boxes(rows: Sequence[Sequence[float]]) -> Boxes:
    """Return the rows as `(n, 4)` float32, also if there are none.

    Example:
        >>> as_boxes([]).shape
        (0, 4)
    """
    with np.errstate(over="ignore"):  # Too large numbers become inf, which `check` reports.
        return np.array(rows, dtype=np.float64).reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True)
class Problem:
    """A problem of a data set.

    Attributes:
        path: The image, annotation file or list with the problem.
        line: Line in the file; None for files without lines.
        message: What must hold, what was received and what to do, on one line.
        record: Record with the problem, if it is solved by leaving out the record or one box.
        box: Index of that box; None means the whole record.
        kind: Name of its kind in `problem_kinds.KINDS`.
    """

    path: Path
    line: int | None
    message: str
    record: Any = field(default=None, repr=False, compare=False)
    box: int | None = field(default=None, repr=False, compare=False)
    kind: KindName = field(default="invalid_annotation", kw_only=True)

    @property
    def stops(self) -> bool:
        """Whether training does not start with this problem."""
        return KINDS[self.kind].stops

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        # On one line that can be shown and written: names of files and classes may be anything.
        return printable(" ".join(f"{place}: {self.message}".splitlines()))


@dataclass(frozen=True, eq=False)
class BoxRecord:
    """The objects of one image.

    Attributes:
        path: Its file; None for a generated image.
        height: Height in pixels in the annotation; 0 if the annotation has none.
        width: Width in pixels in the annotation; 0 if the annotation has none.
        boxes: xyxy, `(n, 4)` float32.
        labels: `(n,)` int64, indices into the labels of the set.
        difficult: `(n,)` bool.
        crowd: `(n,)` bool.
        lines: Place of each box in `annotation`: the line in an XML file, or the position in the
            list `annotations` of a JSON file.
        annotation: The file with the boxes.
        positions: Whether `lines` holds positions instead of lines.
        outlines: One per box, see `outlines.masks_of`; None if they were not requested.
        stated: x, y, width, height and area of every object as the file gives them, `(n, 5)`
            float64, for the metrics of COCO; None for layouts without areas.
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
    stated: npt.NDArray[np.float64] | None = None

    def only(self, kept: Flags) -> "BoxRecord":
        """Return the same image with the boxes whose flag in `kept`, `(n,)`, is set."""
        lines = tuple(compress(self.lines, kept))
        outlines = None if self.outlines is None else tuple(compress(self.outlines, kept))
        rows = {name: getattr(self, name)[kept] for name in ("boxes", "labels")}
        flags = {name: getattr(self, name)[kept] for name in ("difficult", "crowd")}
        stated = None if self.stated is None else self.stated[kept]
        return replace(self, **rows, **flags, lines=lines, outlines=outlines, stated=stated)

    def problem(self, box: int, message: str, kind: KindName) -> Problem:
        """Return a problem of the box with index `box` of this record."""
        if self.positions:
            place = f"annotations[{self.lines[box]}]"
            return Problem(self.annotation, None, f"{place}: {message}", self, box, kind=kind)
        # XML files often have a single line, so the number of the object is given, too.
        text, line = f"object {box + 1}: {message}", self.lines[box]
        return Problem(self.annotation, line, text, self, box, kind=kind)


@dataclass(frozen=True, eq=False)
class ClassRecord:
    """The class of one image.

    Attributes:
        path: Its file; None for a generated image.
        label: Index into the labels of the set.
        annotation: The list that names the image, or the folder with the image.
        line: Line in that list; None for a folder.
        height: Height in pixels in the annotation; 0 if it has none.
        width: Width in pixels in the annotation; 0 if it has none.
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
        path: File of the image; None for a generated image.
        map_path: File of the labels; None for generated labels.
        annotation: The list that names both, or the folder of the labels.
        line: Line in that list; None for a folder.
        height: Height in pixels in the annotation; 0 if it has none.
        width: Width in pixels in the annotation; 0 if it has none.
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
        name: Name in messages and reports, for example "bccd/train".
        labels: Class names in the order of their indices.
        records: One per image.
        image: Function that generates the image with an index as `(height, width, 3)` uint8 RGB;
            None if images are files.
        problems: Entries that the reader left out; `check` reports them.
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
        """Return the set with the flag `difficult` removed from all objects."""
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
        values: Pixel value in the label files -> class index, or `batch.IGNORE` for pixels without
            class. Other values are an error. None means that values are class indices.
        label_map: Function that generates the labels of the image with an index as
            `(height, width)` uint8; None if labels are files.
    """

    records: tuple[MapRecord, ...]
    values: Mapping[int, int] | None = None
    label_map: Callable[[int], Pixels] | None = None
