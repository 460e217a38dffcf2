"""Images with boxes, labels and scores on them.

Line and letter sizes follow the image's, colours follow the class's index, and every tag is put
where it stays inside the image and off the other tags, if there is such a place.
"""

import colorsys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from flyweight.data.batch import BoxPrediction
from flyweight.errors import DataError, FileError
from flyweight.files import replacing

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE = (
    "#f5364d",
    "#1e88ff",
    "#2fbf5b",
    "#ffa21a",
    "#a44ff0",
    "#12c7d6",
    "#ff5fc4",
    "#b6d91e",
    "#a5673f",
    "#ffe14a",
    "#5560f2",
    "#8fa3b5",
)
"""Colours of the first classes; further ones are spread over the colour circle."""

FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "arial.ttf",
)
"""Where letters are sought that Pillow's own font lacks."""

_GOLDEN_TURN = 0.618034
_TINT = 0.45  # share of the class colour in a pixel of a mask
_MISSING_LETTER = "\U0010fffe"


def class_colour(index: int) -> Colour:
    """Return the colour of a class: always the same, unlike its neighbours'.

    Example:
        >>> class_colour(0)
        (245, 54, 77)
    """
    if index < len(PALETTE):
        red, green, blue = ImageColor.getrgb(PALETTE[index])[:3]
        return red, green, blue
    value = (0.95, 0.75)[index % 2]
    channels = colorsys.hsv_to_rgb(index * _GOLDEN_TURN % 1, (0.55, 0.85)[index // 2 % 2], value)
    return tuple(round(255 * channel) for channel in channels)  # type: ignore[return-value]


def text_colour(background: Colour) -> Colour:
    """Return near-black or white, whichever stands out more (WCAG 2 relative luminance)."""
    linear = [((channel / 255 + 0.055) / 1.055) ** 2.4 for channel in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # White loses to near-black where (1.05 / (l + .05)) < ((l + .05) / .058).
    return (255, 255, 255) if luminance < 0.193 else (16, 18, 24)


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font | None:
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _has_letters(name: str | None, text: str) -> bool:
    """Whether a font has all letters of `text`: none looks like the sign for a missing one."""
    font = _font(name, 16)
    if font is None:
        return False
    missing = bytes(font.getmask(_MISSING_LETTER))
    letters = set(text) - {" "}
    return all(bytes(font.getmask(letter)) not in (missing, b"") for letter in letters)


def readable(labels: Sequence[str], size: int) -> list[tuple[str, Font]]:
    """Return every label and a font that has its letters; `#index` where none has.

    The font that has the most labels is tried first for all, so that few are mixed.
    """
    shared = sorted(
        (None, *FONTS), key=lambda name: -sum(_has_letters(name, label) for label in labels)
    )
    return [_readable(label, index, shared, size) for index, label in enumerate(labels)]


def _readable(label: str, index: int, names: Sequence[str | None], size: int) -> tuple[str, Font]:
    for name in names:
        font = _font(name, size)
        if font is not None and _has_letters(name, label):
            return label, font
    return f"#{index}", ImageFont.load_default(size)


@dataclass(frozen=True)
class Tag:
    """A text on a plate of its class's colour.

    Attributes:
        text: What it says.
        font: Has its letters.
        box: What it belongs to, in pixels of the image.
        place: Where the plate is.
        colour: Of the plate.
    """

    text: str
    font: Font
    box: Rectangle
    place: Rectangle
    colour: Colour


def draw_boxes(
    image: Image.Image,
    prediction: BoxPrediction,
    labels: Sequence[str],
    *,
    threshold: float = 0.0,
) -> Image.Image:
    """Return a copy of `image` with what scores at least `threshold` drawn on it.

    Masks, where there are some, tint the objects' pixels.

    Args:
        image: Any mode; the copy is RGB.
        prediction: Boxes in the image's pixels, best first.
        labels: Class names.
        threshold: Lowest score that is drawn.
    """
    canvas = _tinted(image.convert("RGB"), prediction, threshold)
    # A second view of the same pixels, so that shadows can be translucent.
    brush = ImageDraw.Draw(canvas, "RGBA")
    line = max(2, round(min(canvas.size) / 190))
    tags = _place_tags(prediction, labels, threshold, canvas.size)
    # The best come last, on top of the others.
    for tag in reversed(tags):
        _draw_outline(brush, tag.box, tag.colour, line)
    for tag in reversed(tags):
        draw_tag(brush, tag)
    return canvas


def _tinted(image: Image.Image, prediction: BoxPrediction, threshold: float) -> Image.Image:
    """Return the image with every mask in its class's colour, the best on top."""
    if prediction.masks is None:
        return image
    pixels = np.array(image)
    rows = zip(
        prediction.masks, prediction.scores.tolist(), prediction.labels.tolist(), strict=True
    )
    for mask, score, label in reversed(list(rows)):
        if score >= threshold:
            inside = mask.numpy(force=True)
            tint = np.asarray(class_colour(label), dtype=np.float64)
            pixels[inside] = (1 - _TINT) * pixels[inside] + _TINT * tint
    return Image.fromarray(pixels)


def draw_file(
    image: Path,
    prediction: BoxPrediction,
    labels: Sequence[str],
    save_to: Path,
    *,
    threshold: float = 0.0,
) -> None:
    """Draw onto the image in a file, upright by its EXIF tag, and save the result.

    Raises:
        DataError: The image cannot be decoded.
        FileError: `save_to` is no image's name or cannot be written.
    """
    paint = partial(draw_boxes, prediction=prediction, labels=labels, threshold=threshold)
    repaint(image, save_to, paint)


def repaint(image: Path, save_to: Path, paint: Callable[[Image.Image], Image.Image]) -> None:
    """Save what `paint` makes of the image in a file, which it gets upright by its EXIF tag.

    Raises:
        DataError: The image cannot be decoded.
        FileError: `save_to` is no image's name or cannot be written.
    """
    Image.init()
    if Image.EXTENSION.get(save_to.suffix.lower()) not in Image.SAVE:
        raise FileError(
            f"A drawn image must be saved as .png, .jpg or the like. Received: '{save_to}'. "
            "Give it such an ending."
        )
    try:
        with Image.open(image) as opened:
            drawn = paint(ImageOps.exif_transpose(opened))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(
            f"'{image}' must be an image. Received: {' '.join(str(error).split())}. "
            "Check that it opens in a viewer."
        ) from error
    with replacing(save_to) as draft:
        drawn.save(draft, quality=92)


def _place_tags(
    prediction: BoxPrediction, labels: Sequence[str], threshold: float, size: tuple[int, int]
) -> list[Tag]:
    texts = readable(labels, max(12, round(min(size) / 34)))
    tags: list[Tag] = []
    rows = zip(
        prediction.boxes.tolist(),
        prediction.scores.tolist(),
        prediction.labels.tolist(),
        strict=True,
    )
    for corners, score, label in rows:
        if score < threshold:
            continue
        box = _inside(corners, size)
        name, font = texts[label]
        text = f"{name} {score:.2f}"
        place = _free_place(box, tag_size(text, font), size, [tag.place for tag in tags])
        tags.append(Tag(text, font, box, place, class_colour(label)))
    return tags


def _inside(corners: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """Return whole pixels within the image, at least two across."""
    xs = [min(max(round(corner), 0), size[0] - 1) for corner in corners[0::2]]
    ys = [min(max(round(corner), 0), size[1] - 1) for corner in corners[1::2]]
    left, top = min(xs[0], size[0] - 2), min(ys[0], size[1] - 2)
    return max(left, 0), max(top, 0), max(xs[1], left + 1), max(ys[1], top + 1)


def tag_size(text: str, font: Font) -> tuple[int, int]:
    """Return width and height of the plate for a text, in pixels."""
    left, _, right, _ = font.getbbox(text)
    # One height for all, whatever strokes a text's letters have.
    _, top, _, bottom = font.getbbox("Ág0")
    margin = _margin(bottom - top)
    return round(right - left) + 2 * margin + 1, round(bottom - top) + 2 * (margin // 2 + 1)


def _margin(height: float) -> int:
    return max(3, round(height / 3))


def _free_place(
    box: Rectangle, tag: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Return the first place that no tag has; the usual one where all are taken."""
    places = list(_places(box, tag, size))
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    return next(free, places[0])


def _places(box: Rectangle, tag: tuple[int, int], size: tuple[int, int]) -> Iterator[Rectangle]:
    """Yield places for a tag by the box's edges, all moved into the image, best first."""
    left, top, right, bottom = box
    width, height = tag
    above, below = top - height + 1, bottom
    heights = [above, top, below, bottom - height + 1]
    if above < 0:
        heights = [top, *heights[2:]]
    for y in heights:
        for x in (left, right - width + 1):
            x0 = max(min(x, size[0] - width), 0)
            y0 = max(min(y, size[1] - height), 0)
            yield x0, y0, x0 + width - 1, y0 + height - 1


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    across = first[0] <= second[2] and second[0] <= first[2]
    return across and first[1] <= second[3] and second[1] <= first[3]


def _draw_outline(brush: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, line: int) -> None:
    # A hair of shadow lets the line show on any background.
    left, top, right, bottom = box
    brush.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0, 100))
    brush.rectangle(box, outline=colour, width=line)


def draw_tag(brush: ImageDraw.ImageDraw, tag: Tag) -> None:
    """Draw the plate and the text on it."""
    left, top, right, bottom = tag.place
    radius = max(2, (bottom - top) // 6)
    brush.rounded_rectangle(tag.place, radius=radius, fill=tag.colour)
    middle = ((left + right) / 2, (top + bottom) / 2)
    brush.text(middle, tag.text, font=tag.font, fill=text_colour(tag.colour), anchor="mm")
