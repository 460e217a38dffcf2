"""Outlines of objects in the format of COCO, converted to masks when an image is loaded."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flyweight.on_demand import load

_MOST_CHARACTERS = 10  # Of one number: 55 bits, far more than any image has pixels.
_RUN_LENGTHS = "faster_coco_eval.core:mask"  # Imported on use: only sets with masks need it.

Outline = tuple[npt.NDArray[np.float32], ...] | dict[str, Any]
"""Polygons, each of alternating x and y in pixels, or run lengths (`size` and `counts`)."""


def read_outline(segmentation: Any) -> Outline | None:
    """Return the outline in the field `segmentation` of an annotation, or None if it is invalid.

    Args:
        segmentation: Lists of at least three points, or run lengths, compressed or not.
    """
    if isinstance(segmentation, dict):
        return segmentation if _are_run_lengths(segmentation) else None
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = tuple(_polygon(points) for points in segmentation)
    sound = tuple(polygon for polygon in polygons if polygon is not None)
    return sound if len(sound) == len(polygons) else None


def run_lengths_of(outline: Outline, size: tuple[int, int]) -> dict[str, Any]:
    """Return an outline as compressed run lengths of COCO.

    Args:
        outline: Result of `read_outline`.
        size: Height and width of the image; run lengths have their own size.
    """
    coco = load(_RUN_LENGTHS)
    height, width = size
    if isinstance(outline, dict):
        if isinstance(outline["counts"], list):
            return dict(coco.frPyObjects(outline, *outline["size"]))
        counts = outline["counts"]
        return {**outline, "counts": counts.encode() if isinstance(counts, str) else counts}
    polygons = [polygon.tolist() for polygon in outline]
    return dict(coco.merge(coco.frPyObjects(polygons, height, width)))


def masks_of(outlines: Sequence[Outline], size: tuple[int, int]) -> Tensor:
    """Return outlines as masks of an image, `(n, height, width)` uint8 of 0 and 1.

    Args:
        outlines: Results of `read_outline`.
        size: Height and width of the image; run lengths of another size are cropped or padded.
    """
    coco = load(_RUN_LENGTHS)
    masks = torch.zeros((len(outlines), *size), dtype=torch.uint8)
    for index, outline in enumerate(outlines):
        found = torch.from_numpy(np.ascontiguousarray(coco.decode(run_lengths_of(outline, size))))
        height, width = min(size[0], found.shape[0]), min(size[1], found.shape[1])
        masks[index, :height, :width] = found[:height, :width]
    return masks


def _polygon(points: Any) -> npt.NDArray[np.float32] | None:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return None
    if not all(isinstance(value, int | float) and abs(value) < 2**24 for value in points):
        return None
    return np.array(points, dtype=np.float32)


def _are_run_lengths(value: dict[str, Any]) -> bool:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        return False
    if isinstance(counts, list):
        known = all(type(count) is int and count >= 0 for count in counts)
        return known and sum(counts) == size[0] * size[1]
    if not isinstance(counts, str) or min(size) < 0:
        return False
    lengths = _decoded(counts)
    return lengths is not None and sum(lengths) == size[0] * size[1]


def _decoded(counts: str) -> list[int] | None:
    """Return the lengths that a compressed text stands for; None if it is damaged.

    Each character has five bits of a number, lowest first, and a bit that says whether more follow.
    From the fourth on, a number is the difference to the one before the last
    (https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c).
    """
    codes = np.frombuffer(counts.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = codes & 32 == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if places.max() > _MOST_CHARACTERS:
        return None
    numbers = np.add.reduceat((codes & 31) << (5 * places), starts)
    negative = codes[ends] & 16 != 0
    numbers[negative] -= np.int64(1) << (5 * (places[ends][negative] + 1))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    lengths: list[int] = numbers.tolist()
    return lengths if min(lengths) >= 0 else None
