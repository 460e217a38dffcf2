"""Drawing of boxes with labels and scores, and of masks.

Widths of lines and sizes of text follow the size of the image, colours follow the index of the
class, and every tag is placed inside the image and beside the other tags, if there is such a place.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from flyweight.data.batch import BoxPrediction
from flyweight.tasks.drawing.colours import Colour, class_colour
from flyweight.tasks.drawing.tags import Rectangle, Tag, draw_tag, readable, tag_size

_TINT = 0.45  # Share of the class colour in a pixel of a mask.


def draw_boxes(
    image: Image.Image,
    prediction: BoxPrediction,
    labels: Sequence[str],
    *,
    threshold: float = 0.0,
    scores: bool = True,
) -> Image.Image:
    """Return a copy of `image` with the objects drawn that score at least `threshold`.

    If there are masks, they tint the pixels of the objects.

    Args:
        image: Of any mode; the copy is RGB.
        prediction: Boxes in the image's pixels, best first.
        labels: Class names.
        threshold: Lowest score that is drawn.
        scores: Write the score behind the class name; annotations have none.
    """
    canvas = _tinted(image.convert("RGB"), prediction, threshold)
    # A second view of the same pixels, on which shadows can be translucent.
    brush = ImageDraw.Draw(canvas, "RGBA")
    line = max(2, round(min(canvas.size) / 190))
    tags = _place_tags(prediction, labels, threshold, canvas.size, scores=scores)
    # The best are drawn last, on top of the others.
    for tag in reversed(tags):
        _draw_outline(brush, tag.box, tag.colour, line)
    for tag in reversed(tags):
        draw_tag(brush, tag)
    return canvas


def _tinted(image: Image.Image, prediction: BoxPrediction, threshold: float) -> Image.Image:
    """Return the image with every mask in the colour of its class, the best on top."""
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


def _place_tags(
    prediction: BoxPrediction,
    labels: Sequence[str],
    threshold: float,
    size: tuple[int, int],
    *,
    scores: bool,
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
        text = f"{name} {score:.2f}" if scores else name
        place = _free_place(box, tag_size(text, font), size, [tag.place for tag in tags])
        tags.append(Tag(text, font, box, place, class_colour(label)))
    return tags


def _inside(corners: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """Return a box of whole pixels within the image, at least two pixels wide and high."""
    xs = [min(max(round(corner), 0), size[0] - 1) for corner in corners[0::2]]
    ys = [min(max(round(corner), 0), size[1] - 1) for corner in corners[1::2]]
    left, top = min(xs[0], size[0] - 2), min(ys[0], size[1] - 2)
    return max(left, 0), max(top, 0), max(xs[1], left + 1), max(ys[1], top + 1)


def _free_place(
    box: Rectangle, tag: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Return the first place without another tag; the first of all if every place has one."""
    places = list(_places(box, tag, size))
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    return next(free, places[0])


def _places(box: Rectangle, tag: tuple[int, int], size: tuple[int, int]) -> Iterator[Rectangle]:
    """Yield places for a tag at the edges of a box, moved into the image, best first."""
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
    # A thin shadow makes the line visible on any background.
    left, top, right, bottom = box
    brush.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0, 100))
    brush.rectangle(box, outline=colour, width=line)
