"""The stages of the chain. Each takes values, writes files, and returns a value."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from flyweight.config.cuts import TAYLOR, Cut
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config
from flyweight.config.training import TrainConfig
from flyweight.data.images import image_of, prepare
from flyweight.data.records import BoxSet, ImageSet
from flyweight.engine.evaluate import evaluate
from flyweight.engine.fit import FitResult, fit
from flyweight.exporting.model_card import ModelCard
from flyweight.exporting.nms import Detections
from flyweight.exporting.onnx import ExportResult, OnnxConfig, to_onnx
from flyweight.pipeline.detector_evaluation import evaluate_detector
from flyweight.pipeline.inputs import (
    Data,
    Loaded,
    Saver,
    loaders_for,
    task_of,
    val_batches,
)
from flyweight.pipeline.network_plans import example_input
from flyweight.pipeline.preflight import ends_of, require_end
from flyweight.pruning import Criterion, PruningPlan, taylor
from flyweight.pruning.repair.repair import RepairReport, repair_
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME
from flyweight.workspace import Say

_COMPARED = 2
_TAYLOR_BATCHES = 20


def train_model(
    model: nn.Module,
    config: Config,
    train: TrainConfig,
    data: Data,
    folder: Path,
    *,
    resume: bool = False,
) -> FitResult:
    """Train `model` in place; `folder` gets checkpoints, logs and the state to resume from."""
    task = task_of(model, data.labels, config)
    return fit(
        model,
        task,
        loaders_for(config, train, data),
        train,
        save_dir=folder,
        resume=resume,
        save_model=Saver(config, data.labels, task.name),
    )


def evaluate_model(
    model: nn.Module, config: Config, images: ImageSet, *, save_to: Path | None = None
) -> dict[str, float]:
    """Return the metrics of `model` on a checked set.

    Args:
        model: Any of the config's networks.
        config: What to look at and how.
        images: The set.
        save_to: Detectors: gets a text of what was found for each image, in a folder per event,
            as WIDER FACE's evaluation tools read them.

    Raises:
        ConfigError: The model cannot be looked through as the config says.
    """
    task = task_of(model, images.labels, config)
    looks = config.detect.test != "input" or save_to is not None
    if isinstance(images, BoxSet) and looks:
        preprocessing = config.preprocessing
        return evaluate_detector(model, task, config.detect, preprocessing, images, save_to=save_to)
    batches = val_batches(config, images)
    return evaluate(model, task, batches, device="auto", progress=True)


def images_to_compare(images: ImageSet, preprocessing: Preprocessing) -> tuple[Tensor, ...]:
    """Return the first images of a set, each prepared as `(3, height, width)`.

    Raises:
        DataError: One of them does not decode.
    """
    count = min(_COMPARED, len(images))
    return tuple(prepare(image_of(images, index), preprocessing) for index in range(count))


def measured_criterion(model: nn.Module, config: Config, data: Data, cut: Cut) -> Criterion | None:
    """Return the criterion that `cut` names if it has to be measured on training images."""
    if cut.criterion != TAYLOR:
        return None
    task = task_of(model, data.labels, config)
    train = config.train.model_copy(update={"steps": _TAYLOR_BATCHES, "num_workers": 0})
    batches = loaders_for(config, train, data).train(0, 0, 1)
    return taylor(model, batches, task.loss_at_rest)


def repair_model(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    config: Config,
    data: Data,
    *,
    judged: bool = False,
    say: Say,
) -> RepairReport:
    """Refit `small` in place on unvaried training images, without their labels.

    Args:
        dense: The network before the cut.
        small: `prune(dense, plan)`.
        plan: What was cut.
        config: Says how many images.
        data: Has them, and those to judge on.
        judged: Evaluate the network before the cut and after every step.
        say: Told what is going on.
    """
    task = task_of(dense, data.labels, config)

    def metric(model: nn.Module) -> float:
        return evaluate_model(model, config, data.val)[task.primary]

    size, wanted = config.eval_batch_size, config.prune.repair_images
    found = islice(val_batches(config, data.train), math.ceil(wanted / size))
    images = torch.cat([batch.images for batch in found])[:wanted]
    say(f"repair: on {len(images)} training images, without labels")
    batches = [images[at : at + size] for at in range(0, len(images), size)]
    return repair_(dense, small, plan, batches, metric=metric if judged else None, progress=True)


def export_model(
    loaded: Loaded,
    path: Path,
    *,
    end: str = "",
    name: str = "",
    images: Sequence[Tensor] = (),
    runtime: str = DEFAULT_RUNTIME,
) -> ExportResult:
    """Write a checkpoint's network as ONNX, checked against PyTorch.

    Args:
        loaded: From `open_checkpoint`.
        path: The `.onnx` file; the description goes beside it.
        end: One of `ends_of` the task; empty for the first of them.
        name: What the description calls the model.
        images: Prepared inputs, `(3, height, width)`, to compare on besides random ones: in
            random ones a trained detector finds nothing, so they say little of its detections.
        runtime: Name of the runtime that is compared with PyTorch.

    Raises:
        ConfigError: `end` is none of these, or the runtime is not installed.
        ExportError: The exported network differs from PyTorch's.
    """
    end = end or ends_of(loaded.task.name)[0]
    require_end(end, ends_of(loaded.task.name))
    origin = loaded.checkpoint.origin
    card = ModelCard(
        name=name or origin.architecture,
        architecture=origin.architecture,
        task=loaded.task.name,
        labels=loaded.task.labels,
        preprocessing=loaded.preprocessing,
        outputs=end,  # type: ignore[arg-type]
        extra={key: f"{value:.6g}" for key, value in loaded.checkpoint.metrics.items()},
    )
    return to_onnx(
        loaded.model,
        path,
        example=example_input(loaded.preprocessing),
        card=card,
        postprocess=_postprocess(loaded, end),
        compare_on=[(image[None],) for image in images],
        config=OnnxConfig(runtime=runtime),
    )


def _postprocess(loaded: Loaded, end: str) -> nn.Module | None:
    task = loaded.task
    decoder = None if end == "raw" else task.decoder()
    if end != "detections" or decoder is None:
        return decoder
    finisher = task.finisher()
    if finisher is not None:
        return finisher
    settings = task.suppression  # type: ignore[attr-defined]
    return Detections(
        decoder,
        score_threshold=settings.score_threshold,
        iou_threshold=settings.iou_threshold,
        top_k=settings.top_k,
        keep=settings.keep,
        pixel_offset=1.0 if settings.plus_one else 0.0,
    )
