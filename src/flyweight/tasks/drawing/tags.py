"""Tags under each other in the corner of an image: what it shows, without where."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from flyweight.tasks.drawing.boxes import Tag, class_colour, draw_tag, readable, repaint, tag_size

_LARGEST_SHARE = 34
"""A text is so many times smaller than the short side of the image."""


def draw_lines(image: Path, lines: Sequence[tuple[str, int]], save_to: Path) -> None:
    """Write lines onto the image in a file and save the result.

    Args:
        image: The image.
        lines: Text, and the class whose colour it has.
        save_to: Where the result goes.

    Raises:
        DataError: The image cannot be decoded.
        FileError: `save_to` is no image's name or cannot be written.
    """
    repaint(image, save_to, partial(with_tags, lines=lines))


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
