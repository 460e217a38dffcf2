"""Evaluating a detector image by image: at the image's own size, or at several sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import Batch, BoxPrediction
from flyweight.data.images import image_of
from flyweight.data.records import BoxSet
from flyweight.data.samples.box_samples import own_target
from flyweight.engine.evaluate import pick_device, predict_batches
from flyweight.errors import ConfigError, TrainingError
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.tasks.decoding.multi_scale import Floats, as_prediction, find_in, passes_for
from flyweight.tasks.metrics.wider_files import write_faces
from flyweight.tasks.one_image import one_image_batch
from flyweight.tasks.task import Task

Find = Callable[[Tensor, Path], BoxPrediction]


def evaluate_detector(
    model: nn.Module,
    task: Task,
    settings: DetectConfig,
    preprocessing: Preprocessing,
    images: BoxSet,
    *,
    save_to: Path | None = None,
    progress: Progress | bool = True,
) -> dict[str, float]:
    """Return the metrics of a detector that runs on every image at the sizes of `settings.test`.

    Args:
        model: The network. It keeps its modes, on the device that it ran on.
        task: Decoding and metric.
        settings: The detector's.
        preprocessing: The network's input, as trained.
        images: A checked detection set.
        save_to: Gets the detections as WIDER FACE's evaluation tools read them.
        progress: Receives progress.

    Raises:
        ConfigError: The network cannot take such images, or boxes of several classes are to be
            combined by voting.
    """
    find = finder(model, task, settings, preprocessing)
    metric = task.metric()
    order = range(len(images))
    for index in progress_over(order, "evaluate", progress_of(progress)):
        image, record = image_of(images, index), images.records[index]
        path = record.path or Path(f"0--{Path(images.name).name}/{index:05d}.png")
        found = find(image, path)
        target = own_target(image, record, index)
        # The size of the batch does not matter: the target is in the image's own pixels.
        metric.update([found], Batch(torch.zeros(1, 3, 1, 1), (target,)))
        if save_to is not None:
            boxes, scores = (
                part.numpy().astype(np.float64) for part in (found.boxes, found.scores)
            )
            write_faces(save_to, path, boxes, scores)
    return metric.compute()


def finder(
    model: nn.Module, task: Task, settings: DetectConfig, preprocessing: Preprocessing
) -> Find:
    """Return the function that finds objects on an image at the sizes of `settings.test`.

    The function takes an image, `(3, h, w)` uint8, and its path.

    Raises:
        ConfigError: Boxes of several classes are to be combined by voting.
    """
    device = pick_device("auto")
    model.to(device)

    def once(image: Tensor, path: Path, *, native: bool) -> BoxPrediction:
        seen = _as_is(preprocessing, image) if native else preprocessing
        batch = one_image_batch(image, seen, path)
        found: list[tuple[Batch, Any]] = list(predict_batches(model, task, [batch], device=device))
        prediction: BoxPrediction = found[0][1][0]
        return prediction

    if settings.test == "input":
        return lambda image, path: once(image, path, native=False)
    if settings.test == "native":
        return _guarded(settings, lambda image, path: once(image, path, native=True))
    if len(task.labels) != 1:
        raise ConfigError(
            f"detect.test=multi_scale must go with one class. Received {len(task.labels)}. "
            "Use detect.test=native."
        )

    def several(image: Tensor, path: Path) -> BoxPrediction:
        def detect(copy: Tensor) -> tuple[Floats, Floats]:
            found = once(copy, path, native=True)
            return found.boxes.numpy().astype(np.float64), found.scores.numpy().astype(np.float64)

        passes = passes_for(*image.shape[-2:])
        boxes, scores = find_in(detect, image, passes, drop_singletons=settings.drop_singletons)
        return BoxPrediction(*as_prediction(boxes, scores))

    return _guarded(settings, several)


def _as_is(preprocessing: Preprocessing, image: Tensor) -> Preprocessing:
    height, width = image.shape[-2:]
    size = {"height": height, "width": width, "fit": "stretch"}
    return preprocessing.model_copy(update=size)


def _guarded(settings: DetectConfig, find: Find) -> Find:
    def guarded(image: Tensor, path: Path) -> BoxPrediction:
        try:
            return find(image, path)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TrainingError) as error:
            height, width = image.shape[-2:]
            reason = " ".join(str(error.__cause__ or error).split())
            raise ConfigError(
                f"detect.test={settings.test} must go with a network that takes images of any "
                f"size. Received, for '{path.name}' of {width}x{height}: {reason:.160}. "
                "Use detect.test=input."
            ) from error

    return guarded
