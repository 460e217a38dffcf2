"""Images of a report: those that changed most, of all classes, with ground truth."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flyweight.data.batch import BoxPrediction
from flyweight.data.images import image_of
from flyweight.data.layouts.map_files import map_of
from flyweight.data.records import BoxSet, ClassSet, ImageSet, MapSet
from flyweight.errors import counted
from flyweight.files import replacing
from flyweight.pipeline.drawn_images import draw_file
from flyweight.pipeline.inputs import Loaded
from flyweight.pipeline.prediction import Predictor, from_checkpoint, prediction_text
from flyweight.pipeline.report_outcomes import Outcomes
from flyweight.report.rows import ReportImage
from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.canvas import Pixels
from flyweight.tasks.drawing.maps import draw_map

IMAGES = 6
THRESHOLD = 0.4
NAMED = 3
GROUND_TRUTH = "ground truth"
_FOLDER = "pictures"


def choose(qualities: Sequence[Sequence[float]], classes: Sequence[frozenset[int]]) -> list[int]:
    """Return the indices of the images to show, in their order.

    Images whose quality changed most from the first network to the last one come first, or the
    worst ones where there is one network. Images with a class that is not shown yet precede others.

    Args:
        qualities: One sequence per network, with a number per image.
        classes: Classes in each image.

    Example:
        >>> cats, dogs = frozenset({0}), frozenset({1})
        >>> choose([[1.0] * 8, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9]], [cats] * 7 + [dogs])
        [0, 1, 2, 3, 4, 7]
    """
    first, last = np.asarray(qualities[0]), np.asarray(qualities[-1])
    change = 1 - first if len(qualities) == 1 else np.abs(last - first)
    order = np.argsort(-change, kind="stable").tolist()
    chosen: list[int] = []
    shown: set[int] = set()
    for index in order:
        if len(chosen) < IMAGES and classes[index] - shown:
            chosen.append(index)
            shown |= classes[index]
    chosen += [index for index in order if index not in chosen][: IMAGES - len(chosen)]
    return sorted(chosen)


def classes_in(images: ImageSet) -> list[frozenset[int]]:
    """Return the classes of each image; of label images none, because they are not read here."""
    if isinstance(images, BoxSet):
        return [frozenset(record.labels.tolist()) for record in images.records]
    if isinstance(images, ClassSet):
        return [frozenset({record.label}) for record in images.records]
    return [frozenset()] * len(images)


def report_images(
    images: ImageSet,
    models: Mapping[str, Loaded],
    folder: Path,
    outcomes: Mapping[str, Outcomes] | None,
    *,
    changed: Sequence[str] = (),
) -> Iterator[ReportImage]:
    """Draw ground truth and predictions on the chosen images.

    Args:
        images: The split.
        models: The networks by name.
        folder: The run folder.
        outcomes: Of the networks; None shows the first images.
        changed: The two networks whose difference decides; by default the first and the last one.
    """
    if outcomes:
        compared = [outcomes[name] for name in changed] or list(outcomes.values())
        chosen = choose([found.quality.tolist() for found in compared], classes_in(images))
    else:
        chosen = list(range(min(IMAGES, len(images))))
    predictors = {name: from_checkpoint(loaded) for name, loaded in models.items()}
    for index in chosen:
        pixels = image_of(images, index).permute(1, 2, 0).numpy()
        path = images.records[index].path
        title = path.stem if path else f"Image {index}"
        plain = folder / _FOLDER / f"{index}.png"
        with replacing(plain, durable=False) as draft:
            Image.fromarray(pixels).save(draft, format="PNG")
        drawn = _ground_truth(images, index, plain)
        if drawn is not None:
            yield _shown(title, GROUND_TRUTH, drawn[0], folder, drawn[1])
        for name, predictor in predictors.items():
            target = plain.with_name(f"{index}_{name}.png")
            yield _shown(title, name, target, folder, _draw(predictor, pixels, plain, target))


def _shown(title: str, stage: str, path: Path, folder: Path, caption: str) -> ReportImage:
    relative = path.relative_to(folder).as_posix()
    return ReportImage(title=title, stage=stage, path=relative, caption=caption)


def _ground_truth(images: ImageSet, index: int, plain: Path) -> tuple[Path, str] | None:
    """Draw what is true of an image; return the file and its caption."""
    target = plain.with_name(f"{index}_truth.png")
    if isinstance(images, BoxSet):
        record = images.records[index]
        truth = BoxPrediction(
            boxes=torch.from_numpy(record.boxes.copy()),
            scores=torch.ones(len(record.boxes)),
            labels=torch.from_numpy(record.labels.copy()),
        )
        draw_file(
            plain, target, partial(draw_boxes, prediction=truth, labels=images.labels, scores=False)
        )
        return target, counted(len(record.boxes), "object")
    if isinstance(images, ClassSet):
        return plain, images.labels[images.records[index].label]
    if isinstance(images, MapSet):
        labels = map_of(images, index)
        draw_file(plain, target, partial(draw_map, labels=labels, names=images.labels))
        return target, ""
    return None


def _draw(predictor: Predictor, pixels: Pixels, plain: Path, target: Path) -> str:
    """Draw the prediction of one image, saved at `plain`; return its caption."""
    prediction = predictor.predict(pixels)
    draw = partial(predictor.draw, prediction=prediction, threshold=THRESHOLD)
    draw_file(plain, target, draw)
    rows = predictor.listed(prediction, threshold=THRESHOLD)
    if rows and "box" not in rows[0]:
        return ", ".join(prediction_text(row) for row in rows[:NAMED])
    caption = f"{counted(len(rows), 'object')} above a score of {THRESHOLD}"
    every = [] if rows else predictor.listed(prediction, threshold=0.0)
    if not rows and not every:
        return f"{caption}; nothing at any score"
    if not rows:
        best = max(every, key=lambda row: float(row["score"]))
        return f"{caption}; the highest score is {best['score']:.2f} ({best['label']})"
    return caption
