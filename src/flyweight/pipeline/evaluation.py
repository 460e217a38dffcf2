"""Evaluation of a network on a checked split, or of a checkpoint on its config's data."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from flyweight.config.cut_options import CutOptions
from flyweight.config.cuts import Cut
from flyweight.config.reading import touched
from flyweight.config.settings import Config
from flyweight.data.records import BoxSet, ImageSet
from flyweight.data.usable import notes_on
from flyweight.engine.evaluate import evaluate
from flyweight.errors import ConfigError
from flyweight.pipeline.belonging import require_same_labels
from flyweight.pipeline.detector_evaluation import evaluate_detector
from flyweight.pipeline.inputs import (
    Loaded,
    load_model,
    open_val,
    saved_preprocessing,
    task_of,
    val_batches,
    with_overrides,
)
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import with_cut
from flyweight.pipeline.networks import own_builder
from flyweight.progress import Progress, progress_of


def evaluate_model(
    model: nn.Module,
    config: Config,
    images: ImageSet,
    *,
    save_to: Path | None = None,
    progress: Progress | bool = True,
) -> dict[str, float]:
    """Return the metrics of `model` on a checked split.

    Args:
        model: A network of the config.
        config: Settings of preprocessing, decoding and metrics.
        images: The split.
        save_to: For detectors: a folder that gets the detections as text, one file per image in a
            folder per event, as the evaluation tools of WIDER FACE read them.
        progress: Receives progress.

    Raises:
        ConfigError: The network cannot be evaluated as the config says.
    """
    task = task_of(model, images.labels, config)
    one_by_one = config.detect.test != "input" or save_to is not None
    if isinstance(images, BoxSet) and one_by_one:
        how = (model, task, config.detect, config.preprocessing)
        return evaluate_detector(*how, images, save_to=save_to, progress=progress)
    batches = val_batches(config, images)
    return evaluate(model, task, batches, device="auto", progress=progress)


@dataclass(frozen=True)
class Evaluated:
    """The metrics of a checkpoint.

    Attributes:
        checkpoint: The file.
        metrics: By name.
    """

    checkpoint: Path
    metrics: dict[str, float]


def evaluate_checkpoint(
    source: ModelSource,
    *,
    cut: CutOptions | None = None,
    save_to: Path | None = None,
    progress: Progress | bool = False,
) -> Evaluated:
    """Return the metrics of a checkpoint on the validation split of its config.

    Args:
        source: The model and its config.
        cut: Ratios to prune with first, as the original tools took them. A pruned checkpoint must
            have been pruned with these.
        save_to: As for `evaluate_model`.
        progress: Receives messages.

    Raises:
        FlyweightError: The checkpoint, the data or a setting is unusable.
    """
    if source.named is None:
        raise ConfigError("An evaluation must have a config. Received none. Add: -c CONFIG")
    reports = progress_of(progress)
    (label, config), (_, path) = source.named, source.find()
    model, found = load_model(path, config)
    if found.preprocessing:
        saved = saved_preprocessing(found, path)
        config = with_overrides(config, saved, touched(source.overrides))
    if cut is not None and cut.given:
        wanted, build = cut.cut(config.prune), own_builder(config)
        model = with_cut(model, found, config.preprocessing, wanted, build)
        if not found.plans:
            reports.note(f"note: {path} is not pruned; it was cut now")
    images = open_val(config, save_dir=Path(config.save_dir) / label)
    for note in notes_on(images):
        reports.note(note)
    require_same_labels(found, images.labels, path)
    return Evaluated(path, evaluate_model(model, config, images, save_to=save_to, progress=reports))


def cut_again(loaded: Loaded, cut: Cut, config: Config | None) -> Loaded:
    """Return a loaded checkpoint with the cut that was given beside it; see `with_cut`.

    Raises:
        PlanError: A pruned checkpoint was pruned with other ratios, or the cut is invalid.
    """
    build = None if config is None else own_builder(config)
    model = with_cut(loaded.model, loaded.checkpoint, loaded.preprocessing, cut, build)
    return replace(loaded, model=model)
