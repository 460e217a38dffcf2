"""Contact sheet of a data set: sample images with their annotations drawn, as one PNG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from flyweight.data.batch import BoxPrediction
from flyweight.data.images import image_of
from flyweight.data.layouts.map_files import map_of
from flyweight.data.layouts.outlines import masks_of
from flyweight.data.loading import Split
from flyweight.data.records import (
    BoxRecord,
    BoxSet,
    ClassSet,
    Flags,
    ImageSet,
    MapRecord,
    MapSet,
    Problem,
)
from flyweight.errors import DataError
from flyweight.files import replacing
from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.maps import draw_map
from flyweight.tasks.drawing.tags import with_tags

IMAGES = 18
"""Largest number of images of one split."""
_COLUMNS, _SIDE, _MARGIN, _TEXT = 6, 300, 8, 16
Positions = npt.NDArray[np.int64]
_INK, _PAPER, _ALARM = (24, 26, 30), (250, 250, 250), (200, 0, 30)


def write_contact_sheet(
    splits: Mapping[Split, ImageSet], problems: Sequence[Problem], save_to: Path
) -> Path | None:
    """Draw sample images of every split with their annotations, and write them as one PNG.

    Images with problems come first and have a red frame; then images follow that together have as
    many classes as possible. Images that cannot be decoded are left out.

    Args:
        splits: The splits by name.
        problems: Of all splits.
        save_to: The file.

    Returns:
        The file; None if there is no image to draw.

    Raises:
        FileError: The file cannot be written.
    """
    bad = {id(problem.record) for problem in problems if problem.record is not None}
    paths = {problem.path for problem in problems}
    rows: list[tuple[str, list[Image.Image]]] = []
    for name, images in splits.items():
        order = _order(images, bad, paths)
        drawn = (_cell(images, index, alarm=alarm) for index, alarm in order)
        cells = [cell for cell in drawn if cell is not None]
        if cells:
            rows.append((f"{name}: {len(cells)} of {len(images):,} images", cells))
    if not rows:
        return None
    with replacing(save_to) as draft:
        _sheet(rows).save(draft, format="PNG")
    return save_to


def _order(images: ImageSet, bad: set[int], paths: set[Path]) -> list[tuple[int, bool]]:
    """Return (index, whether it has a problem) of the images to draw, problems first."""
    count = len(images)
    faulty = [
        index
        for index, record in enumerate(images.records)
        if id(record) in bad or record.path in paths or _own_annotation(record) in paths
    ]
    chosen = dict.fromkeys(faulty[: IMAGES // 2], True)
    for index in (*_of_all_classes(images), *_evenly(count)):
        if len(chosen) == min(IMAGES, count):
            break
        chosen.setdefault(index, index in faulty)
    return list(chosen.items())


def _own_annotation(record: Any) -> Path | None:
    """Return the file with the annotation of one image alone, where there is one."""
    if isinstance(record, MapRecord):
        return record.map_path
    alone = isinstance(record, BoxRecord) and record.annotation.stem == Path(record.path or "").stem
    return record.annotation if alone else None


def _of_all_classes(images: ImageSet) -> list[int]:
    """Return an image of every class, as far as annotations that are in memory show it."""
    first: dict[int, int] = {}
    for index, record in enumerate(images.records):
        labels = getattr(record, "labels", None)
        known = [record.label] if hasattr(record, "label") else labels
        for label in [] if known is None else np.asarray(known).tolist():
            first.setdefault(label, index)
    return [first[label] for label in sorted(first)][: IMAGES // 2]


def _evenly(count: int) -> list[int]:
    spread = np.linspace(0, count - 1, min(count, IMAGES)).round().astype(int).tolist()
    return [*spread, *range(count)]


def _cell(images: ImageSet, index: int, *, alarm: bool) -> Image.Image | None:
    """Return one drawn image with its name below it; None if it cannot be drawn."""
    try:
        pixels = image_of(images, index)
        # Drawn at the size that is shown, so that class names can be read.
        scale = _SIDE / max(pixels.shape[-2:])
        size = (max(1, round(pixels.shape[-1] * scale)), max(1, round(pixels.shape[-2] * scale)))
        drawn = _DRAW[type(images)](images, index, to_pil_image(pixels).resize(size))
    except DataError:
        return None
    cell = Image.new("RGB", (_SIDE, _SIDE + _TEXT), _PAPER)
    cell.paste(drawn, (0, 0))
    brush = ImageDraw.Draw(cell)
    if alarm:
        frame = (0, 0, drawn.width - 1, drawn.height - 1)
        brush.rectangle(frame, outline=_ALARM, width=4)
    record = images.records[index]
    name = record.path.name if record.path is not None else f"{index:05d}"
    font, ink = ImageFont.load_default(11), _ALARM if alarm else _INK
    brush.text((2, drawn.height + 2), _printable(name)[-44:], fill=ink, font=font)
    return cell


def _printable(name: str) -> str:
    return name.encode("ascii", "replace").decode()


def _boxes(images: BoxSet, index: int, image: Image.Image) -> Image.Image:
    record = images.records[index]
    height, width = image_of(images, index).shape[-2:]
    low = np.minimum(record.boxes[:, :2], record.boxes[:, 2:])
    high = np.maximum(record.boxes[:, :2], record.boxes[:, 2:])
    # Boxes that are not finite, or wholly outside, cannot be drawn.
    inside = (low < [width, height]) & (high > 0) & np.isfinite(low) & np.isfinite(high)
    visible: Flags = np.logical_and.reduce(inside, axis=1)
    kept = record.only(visible)
    shown = np.concatenate([low, high], axis=1)[visible] * (image.width / width)
    masks = None
    if kept.outlines is not None:
        rows, columns = _sampled((height, width), image)
        masks = masks_of(kept.outlines, (height, width))[:, rows][:, :, columns].bool()
    boxes = torch.from_numpy(shown.astype(np.float32))
    scores, labels = torch.ones(len(boxes)), torch.from_numpy(kept.labels)
    prediction = BoxPrediction(boxes, scores, labels, masks)
    return draw_boxes(image, prediction, images.labels, scores=False)


def _class(images: ClassSet, index: int, image: Image.Image) -> Image.Image:
    label = images.records[index].label
    return with_tags(image, [(images.labels[label], label)])


def _map(images: MapSet, index: int, image: Image.Image) -> Image.Image:
    labels = map_of(images, index)
    rows, columns = _sampled(labels.shape, image)
    return draw_map(image, labels[rows][:, columns], images.labels)


def _sampled(size: Sequence[int], image: Image.Image) -> tuple[Positions, Positions]:
    """Return the rows and columns of an array of `size` that an image of another size shows."""
    rows = np.arange(image.height) * size[0] // image.height
    columns = np.arange(image.width) * size[1] // image.width
    return rows, columns


_DRAW: Mapping[type[ImageSet], Callable[..., Image.Image]] = {
    BoxSet: _boxes,
    ClassSet: _class,
    MapSet: _map,
}


def _sheet(rows: Sequence[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Return all cells in a grid, every split below its title."""
    columns = min(_COLUMNS, max(len(cells) for _, cells in rows))
    step_x, step_y = _SIDE + _MARGIN, _SIDE + _TEXT + _MARGIN
    heights = [_TEXT + _MARGIN + -(-len(cells) // columns) * step_y for _, cells in rows]
    sheet = Image.new("RGB", (_MARGIN + columns * step_x, _MARGIN + sum(heights)), _PAPER)
    brush = ImageDraw.Draw(sheet)
    top = _MARGIN
    for (title, cells), height in zip(rows, heights, strict=True):
        brush.text((_MARGIN, top), title, fill=_INK, font=ImageFont.load_default(14))
        for number, cell in enumerate(cells):
            row, column = divmod(number, columns)
            place = (_MARGIN + column * step_x, top + _TEXT + _MARGIN + row * step_y)
            sheet.paste(cell, place)
        top += height
    return sheet
