"""Predictor: a checkpoint or an exported file that finds things on images in memory."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.tasks import TaskConfig
from flyweight.data.batch import Batch, BoxPrediction, ClassPrediction, MapPrediction
from flyweight.errors import ConfigError, ExportError, counted
from flyweight.exporting.exported_model import ExportedModel
from flyweight.pipeline.inputs import Loaded
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME
from flyweight.tasks.by_name import task_for
from flyweight.tasks.decoding.boxes import listed_boxes
from flyweight.tasks.decoding.masks import paste_masks
from flyweight.tasks.drawing.boxes import draw_boxes
from flyweight.tasks.drawing.canvas import Drawable, Pixels, drawn_on
from flyweight.tasks.one_image import image_tensor, one_image_batch
from flyweight.tasks.segment import placed_labels
from flyweight.tasks.task import Listed
from flyweight.untrusted.failures import refusing


@dataclass(frozen=True)
class Predictor:
    """A model, and the functions that use its predictions.

    Attributes:
        predict: Takes an image, `(height, width, 3)` uint8 RGB, and returns its prediction.
        listed: As `Task.listed`.
        draw: As `Task.draw`.
    """

    predict: Callable[[Pixels], Any]
    listed: Callable[..., list[Listed]]
    draw: Callable[..., Any]


def from_checkpoint(loaded: Loaded) -> Predictor:
    """Return the predictor of a checkpoint."""
    task = loaded.task

    def predict(image: Pixels) -> Any:
        return task.predict(loaded.model, image, loaded.preprocessing)

    return Predictor(predict, task.listed, task.draw)


def from_onnx(path: Path, runtime: str = DEFAULT_RUNTIME) -> Predictor:
    """Return the predictor of an exported file: a detector that ends in detections, or another.

    Raises:
        FileError: There is no such file.
        ExportError: It is no ONNX file of flyweight's.
        ConfigError: It is a detector of another end, or the runtime is not installed.
    """
    model = ExportedModel(path, runtime=runtime)
    card, (preprocessing, place) = model.card, placing_of(model)
    checked = partial(_checked, _context_of(path))

    def predict(image: Pixels) -> Any:
        return place(one_image_batch(image_tensor(image), preprocessing))

    def draw(image: Drawable, prediction: BoxPrediction, *, threshold: float) -> Drawable:
        draw_them = partial(
            draw_boxes, prediction=prediction, labels=card.labels, threshold=threshold
        )
        return drawn_on(image, draw_them)

    if card.task not in _PLACED:
        listed = partial(listed_boxes, labels=card.labels)
        return Predictor(predict, checked(listed), checked(draw))
    task = task_for(card.task, None, card.labels, TaskConfig())
    return Predictor(predict, checked(task.listed), checked(task.draw))


def placing_of(model: ExportedModel) -> tuple[Preprocessing, Callable[[Batch], Any]]:
    """Return how images become inputs, and the function from a batch of one to its prediction.

    Raises:
        ConfigError: It is a detector of another end than detections, or takes no images.
    """
    card, path = model.card, model.path
    known = card.task in _PLACED or card.outputs == "detections"
    if card.preprocessing is None or not known:
        raise ConfigError(
            f"Prediction must have a model that ends in detections. Received '{path}', which ends "
            f"in '{card.outputs}'. Export it with: --end detections"
        )
    place = partial(_PLACED.get(card.task, place_detections), raw=card.outputs == "raw")

    def placed(batch: Batch) -> Any:
        return place(model.run(batch.images), batch, card.labels)

    return card.preprocessing, _checked(_context_of(path), placed)


def _context_of(path: Path) -> Callable[[], AbstractContextManager[None]]:
    must = "The description of an ONNX file must fit its graph."
    return partial(refusing, ExportError, must, f"'{path}'", "Export again.")


def _checked(
    context: Callable[[], AbstractContextManager[None]], function: Callable[..., Any]
) -> Callable[..., Any]:
    """Return `function` in a context: what a file describes is only found out when it runs."""

    def run(*arguments: Any, **named: Any) -> Any:
        with context():
            return function(*arguments, **named)

    return run


def prediction_text(row: Listed) -> str:
    """Return one row of `Task.listed` as a line of text.

    Example:
        >>> prediction_text({"label": "cat", "score": 0.912, "box": [1.4, 2.0, 3.0, 4.0]})
        'cat  0.91  [1, 2, 3, 4]'
        >>> prediction_text({"label": "road", "share": 0.314})
        'road  31.4 %'
    """
    words = [str(row["label"])]
    if "score" in row:
        words.append(f"{row['score']:.2f}")
    if "share" in row:
        words.append(f"{100 * row['share']:.1f} %")
    if "box" in row:
        words.append(f"[{', '.join(f'{value:.0f}' for value in row['box'])}]")
    return "  ".join(words)


def place_detections(
    outputs: Mapping[str, Tensor], batch: Batch, labels: tuple[str, ...], *, raw: bool = False
) -> BoxPrediction:
    """Return the detections of an exported detector in the pixels of the image.

    Args:
        outputs: "boxes", "scores", "labels", "counts" of one image, as
            `exporting.nms.Detections` makes them, and "masks" within the boxes if there are masks.
        batch: The image, from `one_image_batch`.
        labels: Class names, to check the labels by; may be empty.
        raw: Must be False.
    """
    count = int(outputs["counts"].flatten()[0])
    found = outputs["labels"].flatten()[:count]
    if labels and count and not 0 <= int(found.min()) <= int(found.max()) < len(labels):
        raise ValueError(f"labels are not within 0..{len(labels) - 1}")
    target = batch.targets[0]
    height, width = target.original_size
    scale = torch.tensor(target.scale).repeat(2)
    boxes = outputs["boxes"].reshape(-1, 4)[:count] * scale
    limit = torch.tensor([width, height] * 2, dtype=boxes.dtype)
    boxes = boxes.clamp(min=0).minimum(limit)
    masks = None
    if "masks" in outputs:
        inside = outputs["masks"].flatten(0, -3)[:count]
        masks = paste_masks(inside, boxes, (height, width))
    return BoxPrediction(
        boxes=boxes,
        scores=outputs["scores"].flatten()[:count],
        labels=found,
        masks=masks,
    )


def _place_classes(
    outputs: Mapping[str, Tensor], batch: Batch, labels: tuple[str, ...], *, raw: bool
) -> ClassPrediction:
    scores = next(iter(outputs.values()))[0]
    if tuple(scores.shape) != (len(labels),):
        raise ValueError(
            f"scores of shape {list(scores.shape)} for {counted(len(labels), 'label')}"
        )
    return ClassPrediction(scores.softmax(dim=0) if raw else scores)


def _place_maps(
    outputs: Mapping[str, Tensor], batch: Batch, labels: tuple[str, ...], *, raw: bool
) -> MapPrediction:
    maps = next(iter(outputs.values()))
    if raw:
        task = task_for("segment", None, labels, TaskConfig())
        prediction: MapPrediction = task.decode(maps, batch)[0]
        return prediction
    if maps.numel() and not 0 <= int(maps.min()) <= int(maps.max()) < len(labels):
        raise ValueError(f"labels are not within 0..{len(labels) - 1}")
    return MapPrediction(placed_labels(maps[0], batch.targets[0]))


_PLACED: Mapping[str, Callable[..., Any]] = {"classify": _place_classes, "segment": _place_maps}
"""Functions that make predictions of exported outputs, for tasks other than detection."""
