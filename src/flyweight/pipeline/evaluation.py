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
from flyweight.pipeline.exported_evaluation import evaluate_exported, open_exported
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
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME


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
    """The metrics of a checkpoint or of an exported file.

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
    runtime: str = DEFAULT_RUNTIME,
    progress: Progress | bool = False,
) -> Evaluated:
    """Return the metrics of a checkpoint, or of an exported file, on its config's validation split.

    Args:
        source: The model and its config.
        cut: Ratios to prune with first, as the original tools took them. A pruned checkpoint must
            have been pruned with these.
        save_to: As for `evaluate_model`; not for exported files.
        runtime: Name of the runtime that executes an exported file.
        progress: Receives messages.

    Raises:
        FlyweightError: The checkpoint, the data or a setting is unusable.
    """
    if source.named is None:
        raise ConfigError("An evaluation must have a config. Received none. Add: -c CONFIG")
    reports = progress_of(progress)
    (label, config), (_, path) = source.named, source.find()
    if path.suffix == ".onnx":
        _require_plain(path, config, cut, save_to)
        return _evaluate_file(path, (label, config), runtime, reports)
    model, found = load_model(path, config)
    if found.preprocessing:
        saved = saved_preprocessing(found, path)
        config = with_overrides(config, saved, touched(source.overrides))
    if cut is not None and cut.given:
        wanted, build = cut.cut(config.prune), own_builder(config)
        model = with_cut(model, found, config.preprocessing, wanted, build)
        if not found.plans:
            reports.note(f"note: {path} is not pruned; it was cut now")
    images = _open_noted(label, config, reports)
    require_same_labels(found.labels, images.labels, path)
    return Evaluated(path, evaluate_model(model, config, images, save_to=save_to, progress=reports))


def _open_noted(label: str, config: Config, progress: Progress) -> ImageSet:
    images = open_val(config, save_dir=Path(config.save_dir) / label)
    for note in notes_on(images):
        progress.note(note)
    return images


def _require_plain(
    path: Path, config: Config, cut: CutOptions | None, save_to: Path | None
) -> None:
    """Refuse what only a checkpoint can do."""
    for what, given in (
        ("--pruned-params", cut is not None and cut.given),
        ("--output-eval", save_to is not None),
        (f"detect.test={config.detect.test}", config.detect.test != "input"),
    ):
        if given:
            raise ConfigError(
                f"An exported file must be evaluated as it is. Received {what} with '{path}'. "
                "Leave it out, or give the checkpoint."
            )


def _evaluate_file(
    path: Path, named: tuple[str, Config], runtime: str, progress: Progress
) -> Evaluated:
    label, config = named
    model = open_exported(path, config, runtime)
    images = _open_noted(label, config, progress)
    require_same_labels(model.card.labels, images.labels, path)
    return Evaluated(path, evaluate_exported(model, config, images, progress=progress))


def cut_again(loaded: Loaded, cut: Cut, config: Config | None) -> Loaded:
    """Return a loaded checkpoint with the cut that was given beside it; see `with_cut`.

    Raises:
        PlanError: A pruned checkpoint was pruned with other ratios, or the cut is invalid.
    """
    build = None if config is None else own_builder(config)
    model = with_cut(loaded.model, loaded.checkpoint, loaded.preprocessing, cut, build)
    return replace(loaded, model=model)
