"""Ground truth for the evaluation of WIDER FACE: four MATLAB files of the validation split.

`wider_face_val.mat` holds all faces. `wider_easy_val.mat`, `wider_medium_val.mat` and
`wider_hard_val.mat` hold the numbers of the faces of that level, from 1 within each image.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flyweight.data.layouts.matlab_cells import read_cells
from flyweight.data.records import Flags
from flyweight.errors import DataError
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes

LEVELS = ("easy", "medium", "hard")
_FACES = "wider_face_val.mat"


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """The faces of one image.

    Attributes:
        event: Folder of the image, for example "0--Parade".
        image: File name without ending.
        boxes: `(n, 4)` float64, `x, y, x + w, y + h`.
        counts: `(n, 3)` bool, whether a face belongs to each of `LEVELS`. A detection of another
            face is neither right nor wrong at this level.
    """

    event: str
    image: str
    boxes: npt.NDArray[np.float64]
    counts: Flags


def read_truth(folder: str | os.PathLike[str]) -> tuple[ImageTruth, ...]:
    """Read the four files in `folder`. Nothing in them is executed.

    Raises:
        DataError: A file is missing, is no MATLAB file of this kind, or differs from the others.
    """
    root = Path(folder)
    faces = _load(root / _FACES, ("event_list", "file_list", "face_bbx_list"))
    chosen = {level: root / f"wider_{level}_val.mat" for level in LEVELS}
    lists = {level: _load(path, ("gt_list",))["gt_list"] for level, path in chosen.items()}
    found = []
    must = "WIDER FACE's ground truth must be four files of one set."
    with refusing(DataError, must, f"'{root}'", "Copy all four from the same place."):
        for number, event in enumerate(faces["event_list"][:, 0]):
            images = faces["file_list"][number, 0][:, 0]
            boxes = faces["face_bbx_list"][number, 0][:, 0]
            kept = [lists[level][number, 0][:, 0] for level in LEVELS]
            for index, image in enumerate(images):
                rows = [level[index] for level in kept]
                found.append(_truth(str(event[0]), str(image[0]), boxes[index], rows))
    return tuple(found)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"WIDER FACE's ground truth must be four .mat files. Received no '{path}'. "
            "They come with the evaluation tools of the data set."
        )
    must = f"'{path}' must be a MATLAB file of version 5 to 7."
    with refusing(DataError, must, "", "Copy it again."):
        content = read_cells(read_bytes(path), names)
    for name in names:
        if name not in content:
            raise DataError(
                f"'{path}' must hold the variable '{name}'. Received a file without it. "
                "Check that files were not renamed."
            )
    return content


def _truth(event: str, image: str, boxes: Any, kept: list[Any]) -> ImageTruth:
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    counts = np.zeros((len(corners), len(LEVELS)), dtype=np.bool_)
    for column, numbers in enumerate(kept):
        counts[np.asarray(numbers, dtype=np.int64).reshape(-1) - 1, column] = True
    return ImageTruth(event, image, corners, counts)
