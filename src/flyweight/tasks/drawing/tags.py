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
"""Fonts that are tried for characters that Pillow's own font does not have."""

_LARGEST_SHARE = 34
"""A text is so many times smaller than the short side of the image."""
_MISSING = "\U0010fffe"


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font | None:
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _has_characters(name: str | None, text: str) -> bool:
    """Whether a font has all characters of `text`: none is drawn as a missing one is."""
    font = _font(name, 16)
    if font is None:
        return False
    missing = bytes(font.getmask(_MISSING))
    characters = set(text) - {" "}
    return all(bytes(font.getmask(one)) not in (missing, b"") for one in characters)


def readable(labels: Sequence[str], size: int) -> list[tuple[str, Font]]:
    """Return every label with a font that has its characters; `#index` if no font has them.

    The font that has the most labels is tried first for all, so that few fonts are mixed.
    """
    shared = sorted(
        (None, *FONTS), key=lambda name: -sum(_has_characters(name, label) for label in labels)
    )
    return [_readable(label, index, shared, size) for index, label in enumerate(labels)]


def _readable(label: str, index: int, names: Sequence[str | None], size: int) -> tuple[str, Font]:
    for name in names:
        font = _font(name, size)
        if font is not None and _has_characters(name, label):
            return label, font
    return f"#{index}", ImageFont.load_default(size)


@dataclass(frozen=True)
class Tag:
    """A text on a plate of its class's colour.

    Attributes:
        text: The text.
        font: A font that has its characters.
        box: The box that it belongs to, in pixels of the image.
        place: The plate, in pixels of the image.
        colour: Colour of the plate.
    """

    text: str
    font: Font
    box: Rectangle
    place: Rectangle
    colour: Colour


def tag_size(text: str, font: Font) -> tuple[int, int]:
    """Return width and height of the plate for a text, in pixels."""
    left, _, right, _ = font.getbbox(text)
    # One height for all, independent of the characters of the text.
    _, top, _, bottom = font.getbbox("Ág0")
    margin = _margin(bottom - top)
    return round(right - left) + 2 * margin + 1, round(bottom - top) + 2 * (margin // 2 + 1)


def _margin(height: float) -> int:
    return max(3, round(height / 3))


def draw_tag(brush: ImageDraw.ImageDraw, tag: Tag) -> None:
    """Draw a plate and the text on it."""
    left, top, right, bottom = tag.place
    radius = max(2, (bottom - top) // 6)
    brush.rounded_rectangle(tag.place, radius=radius, fill=tag.colour)
    middle = ((left + right) / 2, (top + bottom) / 2)
    brush.text(middle, tag.text, font=tag.font, fill=text_colour(tag.colour), anchor="mm")


def with_tags(image: Image.Image, lines: Sequence[tuple[str, int]]) -> Image.Image:
    """Return a copy of `image`, RGB, with lines of text in its upper left corner.

    Lines that do not fit into the image are left out.

    Args:
        image: Of any mode.
        lines: Text, and the index of the class whose colour it has.
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
