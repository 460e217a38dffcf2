"""Generated classification and segmentation sets of digits, with the scans of `digits`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flyweight.data.layouts.digits import LABELS, VISIBLE, DigitPainter, scans_of
from flyweight.data.records import ClassRecord, ClassSet, MapRecord, MapSet, Pixels

MAP_LABELS = ("background", *LABELS)


def make_digit_classes(
    split: Literal["train", "val"], count: int, *, size: int = 64, seed: int = 0
) -> ClassSet:
    """Return `count` square images of one large digit each. Images are generated on access.

    Args:
        split: "train" and "val" show different scans.
        count: Number of images.
        size: Side in pixels.
        seed: Another seed makes another set.
    """
    scans, digits = scans_of(split)
    key = (seed, int(split == "val"))
    painter = DigitPainter(scans, digits, size, key, counts=(1, 1), heights=(0.4, 0.65))
    labels = [next(painter.glyphs(index)).label for index in range(count)]
    records = tuple(ClassRecord(None, label, Path(), height=size, width=size) for label in labels)
    return ClassSet(f"digits_classes/{split}", LABELS, records, image=painter)


def make_digit_maps(
    split: Literal["train", "val"], count: int, *, size: int = 96, seed: int = 0
) -> MapSet:
    """Return `count` square images in which every pixel of a digit has the class of the digit.

    Args:
        split: "train" and "val" show different scans.
        count: Number of images.
        size: Side in pixels.
        seed: Another seed makes another set.
    """
    scans, digits = scans_of(split)
    key = (seed, int(split == "val"))
    painter = DigitPainter(scans, digits, size, key, counts=(2, 6), heights=(0.25, 0.5))
    records = tuple(MapRecord(None, None, Path(), height=size, width=size) for _ in range(count))
    return MapSet(
        f"digits_maps/{split}",
        MAP_LABELS,
        records,
        image=painter,
        label_map=_InkMap(painter),
    )


@dataclass(frozen=True, eq=False)
class _InkMap:
    """Generates the labels of images of digits by their index."""

    painter: DigitPainter

    def __call__(self, index: int) -> Pixels:
        """Return the labels of image `index`, `(size, size)` uint8; 0 is the background."""
        labels = np.zeros((self.painter.size, self.painter.size), dtype=np.uint8)
        for glyph in self.painter.glyphs(index):
            left, top, right, bottom = glyph.box
            # Later digits cover earlier ones, as in the image.
            labels[top:bottom, left:right][glyph.ink > VISIBLE] = glyph.label + 1
        return labels
