"""Generated detection set: real handwritten digits on cluttered backgrounds.

The digits are the 1797 scans in scikit-learn (Alpaydin and Kaynak 1998, UCI "Optical Recognition of
Handwritten Digits"). An image is a function of (seed, split, index). Training and validation have
different scans.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from flyweight.data.records import BoxRecord, BoxSet, Pixels, as_boxes
from flyweight.errors import ConfigError
from flyweight.on_demand import load

LABELS = tuple(str(digit) for digit in range(10))
Floats = npt.NDArray[np.float32]

_SCANS = "sklearn.datasets:load_digits"  # Imported on use: it takes about a second.
_EVERY_FIFTH = 5  # Every fifth scan is in the validation split.
_DEGREES = 15.0
_PLACING_ATTEMPTS = 12
_MOST_OVERLAP = 0.05  # As a share of the smaller of two boxes.
_FLANKS = np.clip((np.arange(256, dtype=np.float32) - 51) / 128, 0, 1)  # From grey to ink.
VISIBLE = 0.3  # Least ink of a pixel of a digit.
_LEAST_CONTRAST = 70.0  # Grey levels between a digit and the mean of what it covers.


def make_digits(
    split: Literal["train", "val"], count: int, *, size: int = 160, seed: int = 0
) -> BoxSet:
    """Return `count` square images of 1 to 8 digits each. Images are generated on access.

    Args:
        split: "train" and "val" show different scans.
        count: Number of images.
        size: Side in pixels, at least 32.
        seed: Another seed makes another set.

    Raises:
        ConfigError: `size` is below 32, or `seed` or `count` is negative.
    """
    if size < 32 or seed < 0 or count < 0:
        raise ConfigError(
            "Digits must have size >= 32, seed >= 0 and count >= 0. "
            f"Received size {size}, seed {seed}, count {count}. Correct them."
        )
    painter = DigitPainter(*scans_of(split), size=size, key=(seed, int(split == "val")))
    records = tuple(painter.record(index) for index in range(count))
    return BoxSet(f"digits/{split}", LABELS, records, image=painter)


@dataclass(frozen=True)
class Glyph:
    """A placed digit.

    Attributes:
        ink: `(h, w)` float32 in 0..1.
        box: Left, top, right, bottom of the ink in the image, whole pixels.
        label: The digit.
    """

    ink: Floats
    box: tuple[int, int, int, int]
    label: int


@dataclass(frozen=True, eq=False)
class DigitPainter:
    """Generates the images of a set by their index.

    Attributes:
        scans: `(n, 10, 10)` uint8, 0..255.
        digits: `(n,)` int64, the digit of each scan.
        size: Side of an image in pixels.
        key: Seed and number of the split.
        counts: Smallest and largest number of digits to place in an image.
        heights: Smallest and largest height of a digit, relative to the side of the image.
    """

    scans: Pixels
    digits: npt.NDArray[np.int64]
    size: int
    key: tuple[int, int]
    counts: tuple[int, int] = (3, 14)
    heights: tuple[float, float] = (0.15, 0.36)

    def record(self, index: int) -> BoxRecord:
        """Return the boxes of image `index` without painting it."""
        glyphs = tuple(self.glyphs(index))
        return BoxRecord(
            path=None,
            height=self.size,
            width=self.size,
            boxes=as_boxes([glyph.box for glyph in glyphs]),
            labels=np.array([glyph.label for glyph in glyphs], dtype=np.int64),
            difficult=np.zeros(len(glyphs), dtype=np.bool_),
            crowd=np.zeros(len(glyphs), dtype=np.bool_),
            lines=tuple(range(len(glyphs))),
            annotation=Path(),
            positions=True,
        )

    def __call__(self, index: int) -> Pixels:
        """Return image `index`, `(size, size, 3)` uint8."""
        random = np.random.default_rng([*self.key, index, 1])
        image = _background(random, self.size)
        for glyph in self.glyphs(index):
            _paint(random, image, glyph)
        grain = np.float32(random.uniform(2, 14) / 128)
        noise = np.frombuffer(random.bytes(image.size), dtype=np.int8).reshape(image.shape)
        image += noise * grain
        return np.clip(image, 0, 255, out=image).astype(np.uint8)

    def glyphs(self, index: int) -> Iterator[Glyph]:
        """Yield the digits of image `index`."""
        random = np.random.default_rng([*self.key, index, 0])
        taken: list[tuple[int, int, int, int]] = []
        for _ in range(int(random.integers(self.counts[0], self.counts[1] + 1))):
            scan = int(random.integers(len(self.scans)))
            ink = _ink(random, self.scans[scan], self.size, self.heights)
            box = _place(random, ink.shape[:2], self.size, taken)
            if box is not None:
                taken.append(box)
                yield Glyph(ink, box, int(self.digits[scan]))


def scans_of(split: Literal["train", "val"]) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return the scans of a split, `(n, 10, 10)` uint8, and the digit of each."""
    bundled: Any = load(_SCANS)()
    # A margin, because some strokes touch the border of the scan.
    images = np.pad(bundled.images, ((0, 0), (1, 1), (1, 1)))
    chosen = (np.arange(len(bundled.target)) % _EVERY_FIFTH == 0) == (split == "val")
    scans = np.rint(images[chosen] * (255 / 16)).astype(np.uint8)
    return scans, bundled.target[chosen].astype(np.int64)


def _ink(
    random: np.random.Generator, scan: Pixels, size: int, heights: tuple[float, float]
) -> Floats:
    """Return the scan enlarged, rotated by a few degrees and cropped to its ink."""
    low, high = heights
    # Uniform in the logarithm, so that small and large digits are equally frequent.
    height = size * low * (high / low) ** random.random()
    width = height * random.uniform(0.75, 1.15)
    turned = _enlarge(scan, width, height, math.radians(random.uniform(-_DEGREES, _DEGREES)))
    # More contrast, because enlarging blurs the strokes.
    ink: Floats = _FLANKS[np.asarray(turned)]
    visible = ink > VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _enlarge(scan: Pixels, width: float, height: float, angle: float) -> Image.Image:
    """Return the scan at `width` x `height` pixels, rotated by `angle` on a large enough canvas."""
    cosine, sine = math.cos(angle), math.sin(angle)
    wide = math.ceil(width * abs(cosine) + height * abs(sine))
    high = math.ceil(width * abs(sine) + height * abs(cosine))
    side = len(scan)
    # From the pixels of the result to those of the scan, centre on centre.
    a, b = side * cosine / width, side * sine / width
    d, e = -side * sine / height, side * cosine / height
    c, f = side / 2 - (a * wide + b * high) / 2, side / 2 - (d * wide + e * high) / 2
    return Image.fromarray(scan).transform(
        (wide, high), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    )


def _place(
    random: np.random.Generator,
    shape: tuple[int, ...],
    size: int,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    """Return a box for ink of `shape` with little overlap with `taken`, or None if none fits."""
    height, width = shape
    for _ in range(_PLACING_ATTEMPTS):
        left = int(random.integers(0, size - width + 1))
        top = int(random.integers(0, size - height + 1))
        box = (left, top, left + width, top + height)
        if all(_overlap(box, other) <= _MOST_OVERLAP for other in taken):
            return box
    return None


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Return the common area relative to the smaller box."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return width * height / min(areas)


def _background(random: np.random.Generator, size: int) -> Floats:
    """Return a gradient with lines and blobs on it, `(size, size, 3)` float32."""
    base = random.uniform(130, 235, 3)
    corners = np.clip(base + random.uniform(-60, 60, (2, 2, 3)), 0, 255).astype(np.uint8)
    middle = (0.5, 0.5, 1.5, 1.5)
    image = Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR, box=middle)
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(2, 9))):
        _clutter(random, draw, size, base)
    return np.asarray(image, dtype=np.float32).copy()


def _clutter(
    random: np.random.Generator, draw: ImageDraw.ImageDraw, size: int, base: npt.NDArray[np.float64]
) -> None:
    """Draw one line, arc, ellipse or rectangle, of a colour not far from `base`."""
    shade = np.clip(base + random.uniform(-60, 60, 3), 0, 255)
    red, green, blue = (int(channel) for channel in shade)
    x, y = random.uniform(-0.1, 1.0, 2) * size
    width, height = random.uniform(0.05, 0.45, 2) * size
    corners = (float(x), float(y), float(x + width), float(y + height))
    stroke = int(random.integers(1, max(2, size // 50) + 1))
    kind = int(random.integers(4))
    if kind == 0:
        draw.line(corners, fill=(red, green, blue), width=stroke)
    elif kind == 1:
        start = float(random.uniform(0, 360))
        draw.arc(corners, start, start + 200, fill=(red, green, blue), width=stroke)
    elif kind == 2:
        draw.ellipse(corners, fill=(red, green, blue))
    else:
        draw.rectangle(corners, fill=(red, green, blue))


def _paint(random: np.random.Generator, image: Floats, glyph: Glyph) -> None:
    """Paint dark ink on `image`, with a visible contrast to the background."""
    left, top, right, bottom = glyph.box
    under = image[top:bottom, left:right]
    grey = float(under[::2, ::2].mean())
    level = grey - random.uniform(min(_LEAST_CONTRAST, grey), grey)
    tint = random.uniform(-30, 30, 3)
    colour = np.clip(level + tint - tint.mean(), 0, 255).astype(np.float32)
    under += glyph.ink[:, :, None] * (colour - under)
