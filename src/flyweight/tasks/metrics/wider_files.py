"""Files of face detections in the format of WIDER FACE's evaluation tools, one text per image.

`<folder>/<event>/<image>.txt`: the path of the image, the number of faces, and a row
`x y w h score` for each.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import DataError
from flyweight.files import write_text
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The detections in one image.

    Attributes:
        event: Name of the folder of the image.
        image: Name of the image without its ending.
        boxes: `(n, 4)` float64 xyxy.
        scores: `(n,)` float64.
    """

    event: str
    image: str
    boxes: Floats
    scores: Floats


def write_faces(
    folder: str | os.PathLike[str],
    image: Path,
    boxes: Floats,
    scores: Floats,
    *,
    like_originals: bool = False,
) -> Path:
    """Write the detections of one image.

    Args:
        folder: The folder that gets a folder per event.
        image: Path of the image; its last folder is the event.
        boxes: `(n, 4)` xyxy in pixels of the original image.
        scores: `(n,)`.
        like_originals: Write widths and heights one pixel larger, boxes to a tenth of a pixel and
            scores to a thousandth, as PaddleDetection did. Otherwise boxes are exact to a hundredth
            of a pixel and scores to a millionth.

    Raises:
        FileError: The folder cannot be written.
    """
    order = np.argsort(-scores, kind="stable")  # The tools expect this order.
    extra, digits, score_digits = (1, 1, 3) if like_originals else (0, 2, 6)
    event = image.parent.name
    lines = [f"{event}/{image.name}", str(len(boxes))]
    for (left, top, right, bottom), score in zip(boxes[order], scores[order], strict=True):
        sides = (left, top, right - left + extra, bottom - top + extra)
        row = " ".join(f"{side:.{digits}f}" for side in sides)
        lines.append(f"{row} {score:.{score_digits}f}")
    path = Path(folder) / event / f"{image.stem}.txt"
    write_text(path, "\n".join([*lines, ""]))
    return path


def read_faces(folder: str | os.PathLike[str]) -> Iterator[FoundFaces]:
    """Yield the detections of every image, in the order of events and names.

    Raises:
        DataError: There is no such folder, no text in it, or a text has another format.
    """
    root = Path(folder)
    texts = sorted(root.glob("*/*.txt"))
    if not texts:
        raise DataError(
            "A folder of detections must hold a text per image in a folder per event. Received "
            f"'{root}' without any. Check the path."
        )
    for path in texts:
        yield _read(path)


def _read(path: Path) -> FoundFaces:
    must = "Detections must be a path, a count and rows `x y w h score`."
    with refusing(DataError, must, f"'{path}'", "Write it again."):
        lines = read_text(path).splitlines()
        rows = [[float(word) for word in line.split()] for line in lines[2:] if line.strip()]
        expected = float(lines[1])
        values = np.array(rows, dtype=np.float64).reshape(-1, 5)
        if not all(len(row) == 5 for row in rows) or expected != len(rows):
            raise ValueError(f"a count of {expected:g} and {len(rows)} rows of five numbers or not")
    boxes = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:4]], axis=1)
    return FoundFaces(path.parent.name, path.stem, boxes, values[:, 4])
