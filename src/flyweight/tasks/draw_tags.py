"""Tags under each other in the corner of a picture: what it shows, without where."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from flyweight.tasks.draw import Tag, class_colour, draw_tag, readable, repaint, tag_size

_LARGEST_SHARE = 34
"""A text is so many times smaller than the short side of the picture."""


def draw_lines(image: Path, lines: Sequence[tuple[str, int]], save_to: Path) -> None:
    """Write lines onto the picture in a file and save the result.

    Args:
        image: The picture.
        lines: Text, and the class whose colour it has.
        save_to: Where the result goes.

    Raises:
        DataError: The picture cannot be decoded.
        FileError: `save_to` is no picture's name or cannot be written.
    """
    repaint(image, save_to, partial(with_tags, lines=lines))


def with_tags(picture: Image.Image, lines: Sequence[tuple[str, int]]) -> Image.Image:
    """Return a copy of `picture`, RGB, with the lines in its upper left corner.

    Lines that would leave the picture at the bottom are left out.
    """
    canvas = picture.convert("RGB")
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
