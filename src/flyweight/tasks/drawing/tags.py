"""Tags: texts on plates in the colours of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from flyweight.tasks.drawing.colours import Colour, class_colour, text_colour

Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, both ends inside."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

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

_LARGEST_SHARE = 34
"""A text is so many times smaller than the short side of the image."""
_MISSING_LETTER = "\U0010fffe"


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


def tag_size(text: str, font: Font) -> tuple[int, int]:
    """Return width and height of the plate for a text, in pixels."""
    left, _, right, _ = font.getbbox(text)
    # One height for all, whatever strokes a text's letters have.
    _, top, _, bottom = font.getbbox("Ág0")
    margin = _margin(bottom - top)
    return round(right - left) + 2 * margin + 1, round(bottom - top) + 2 * (margin // 2 + 1)


def _margin(height: float) -> int:
    return max(3, round(height / 3))


def draw_tag(brush: ImageDraw.ImageDraw, tag: Tag) -> None:
    """Draw the plate and the text on it."""
    left, top, right, bottom = tag.place
    radius = max(2, (bottom - top) // 6)
    brush.rounded_rectangle(tag.place, radius=radius, fill=tag.colour)
    middle = ((left + right) / 2, (top + bottom) / 2)
    brush.text(middle, tag.text, font=tag.font, fill=text_colour(tag.colour), anchor="mm")


def with_tags(image: Image.Image, lines: Sequence[tuple[str, int]]) -> Image.Image:
    """Return a copy of `image`, RGB, with the lines in its upper left corner.

    Lines that would leave the image at the bottom are left out.
    """
    canvas = image.convert("RGB")
    brush = ImageDraw.Draw(canvas, "RGBA")
    size = max(12, round(min(canvas.size) / _LARGEST_SHARE))
    margin = max(2, size // 4)
    top = margin
    fonts = readable([text for text, _ in lines], size)
    for (text, font), (_, label) in zip(fonts, lines, strict=True):
        width, height = tag_size(text, font)
        if top + height > canvas.height:
            break
        place = (margin, top, margin + width - 1, top + height - 1)
        draw_tag(brush, Tag(text, font, place, place, class_colour(label)))
        top += height + margin // 2
    return canvas
