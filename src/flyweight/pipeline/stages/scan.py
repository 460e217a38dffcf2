"""Scanning stage: the sensitivity curves of a network's layers."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from flyweight.checkpoint import Checkpoint
from flyweight.config.cuts import ALL, TAYLOR, THIS_RUN, BudgetCut, MaxDropCut
from flyweight.config.scanning import CURVES, SensitivityOptions
from flyweight.config.settings import Config
from flyweight.data.samples.strata import stratified_order
from flyweight.data.unlabelled import ImageBatches
from flyweight.data.usable import notes_on
from flyweight.digests import digest_of_file
from flyweight.errors import counted
from flyweight.pipeline.belonging import (
    preprocessing_text,
    require_same_labels,
    require_scan,
    uses_of,
)
from flyweight.pipeline.inputs import (
    Data,
    load_model,
    open_val,
    saved_preprocessing,
    task_of,
    val_batches,
)
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import trace_model
from flyweight.pipeline.preflight import checkpoint_path
from flyweight.pipeline.results import Scanned, Trained
from flyweight.pipeline.stage import INPUT, LOADING, NETWORK, TASKS, Inputs, Stage
from flyweight.pipeline.version_0_1_0 import digest_as_recorded
from flyweight.progress import Progress, progress_of
from flyweight.sensitivity import FastScanSettings
from flyweight.sensitivity import merge as merge_two
from flyweight.sensitivity import read as read_curves
from flyweight.sensitivity import scan as scan_layers
from flyweight.sensitivity.journal import parts_of
from flyweight.workspace import Say, Workspace
from flyweight.zoo.sources.old_names import old_names

_DEFAULT = SensitivityOptions()


def scan(
    name: str,
    config: Config,
    save_to: Path,
    options: SensitivityOptions = _DEFAULT,
    *,
    progress: Progress | bool = False,
) -> Scanned:
    """Scan the checkpoint that `weights` names, or else the best one in `save_dir/NAME`.

    An interrupted scan into the same file is resumed.

    Args:
        name: Of the run.
        config: Model and data.
        save_to: The file of the curves.
        options: How to scan.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The checkpoint or the data are unusable, or another scan writes the file.
    """
    reports = progress_of(progress)
    path = checkpoint_path(name, config, "")
    data = None
    if not options.images:
        images = open_val(config, save_dir=Path(config.save_dir) / name)
        for note in notes_on(images):
            reports.note(note)
        data = Data(images, images)
    inputs = Inputs(
        name=name,
        data=data,
        results={"train": Trained(path, {}, 0.0)},
        options=replace(options, file=save_to.name),
        resume=True,
        progress=reports,
    )
    reports.note(f"weights: {path}")
    result: Scanned = SCAN.run(inputs, SCAN.view(config), Workspace(save_to.parent))
    return result


def merge_scans(
    files: Sequence[Path],
    save_to: Path,
    source: ModelSource | None = None,
    *,
    foreign: bool = False,
    progress: Progress | bool = False,
) -> Scanned:
    """Merge the curves of several files into one; files of the original tools are read, too.

    Args:
        files: Curves of different layers or ratios of one network.
        save_to: The file of the merged curves.
        source: The network, for what needs its graph.
        foreign: Use the curves although they are of another network, or of other weights.
        progress: Receives messages.

    Raises:
        FlyweightError: A file cannot be read, the curves do not go together, or the network is
            unusable.
    """
    first, *others = [read_curves(file) for file in files]
    for other in others:
        first = merge_two(first, other)
    if source is None:
        first.save(save_to)
        return Scanned(save_to, first)
    _, path = source.find()
    config = None if source.named is None else source.named[1]
    model, found = load_model(path, config)
    wanted = saved_preprocessing(found, path) if config is None else config.preprocessing
    say = progress_of(progress).note
    say(f"weights: {path}")
    graph = trace_model(model.eval(), wanted)
    require_scan(first, files[0], uses_of(graph, model, wanted), foreign=foreign, say=say)
    first.save(save_to)
    return Scanned(save_to, first, graph)


@dataclass(frozen=True)
class _Evaluation:
    """Images, and what is measured on them."""

    batches: Iterable[Any]
    metric: Any
    digest: str
    name: str
    images: int


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Scanned:
    options: SensitivityOptions = inputs.options
    target = workspace.folder / options.file
    if not inputs.resume:
        parts_of(target).remove()
    path = inputs.results["train"].checkpoint
    model, found = load_model(path, settings)
    evaluation = _evaluation(model, found, inputs, settings, target)
    graph = trace_model(model.eval(), settings.preprocessing)
    fast = FastScanSettings(max_drop=options.max_drop) if options.mode == "fast" else None
    if fast is not None and evaluation.images <= 2 * fast.first:
        inputs.progress.note(
            f"note: {counted(evaluation.images, 'image')} are too few for the fast mode: it reads "
            f"{fast.first} first. --mode exact takes about as long, and its numbers are exact"
        )
    named = options.layers or settings.prune.params
    curves = scan_layers(
        graph,
        model,
        evaluation.batches,
        evaluation.metric,
        ratios=options.ratios,
        save_to=target,
        layers=None if named in ((), (ALL,)) else named,
        criterion=_criterion(options, settings, inputs.progress.note),
        local=True,
        aliases=old_names(graph.tensors),
        data=evaluation.digest,
        made_with={"preprocessing": preprocessing_text(settings.preprocessing)},
        measured_on=evaluation.name,
        fast=fast,
        ray=options.ray,
        progress=inputs.progress,
    )
    return Scanned(target, curves, graph)


def _criterion(options: SensitivityOptions, settings: Config, say: Say) -> str:
    """Return how channels are scored: as the options or the config say, by weights alone."""
    if options.criterion or settings.prune.criterion != TAYLOR:
        return options.criterion or settings.prune.criterion
    say(f"note: channels are scored by l1_norm, because a scan does not measure '{TAYLOR}'")
    return "l1_norm"


def _evaluation(
    model: nn.Module, found: Checkpoint, inputs: Inputs, settings: Config, target: Path
) -> _Evaluation:
    options: SensitivityOptions = inputs.options
    if options.images:
        paths = list(options.images)
        random.Random(0).shuffle(paths)
        kind = "feature_error" if found.task == "detect" else "kl"
        inputs.progress.note(f"note: no labels: agreement ({kind}) is weaker than a metric")
        batches = ImageBatches(paths, settings.preprocessing, settings.eval_batch_size)
        name = f"{options.images[0].parent}, {len(paths)} images"
        return _Evaluation(batches, kind, "", name, len(paths))
    images = inputs.splits.val
    require_same_labels(found.labels, images.labels, inputs.results["train"].checkpoint)
    order = stratified_order(images) if options.mode == "fast" else None
    task = task_of(model, images.labels, settings)
    name = f"{images.name}, {len(images)} images"
    note = parts_of(target).read()
    old = None if note is None or note.made_from is None else note.made_from.get("data")
    digest = digest_as_recorded(str(old or ""), images, inputs.digest_of("val"))
    loader = val_batches(settings, images, order=order)
    return _Evaluation(loader, task, digest, name, len(images))


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Scanned:
    path = workspace.folder / inputs.options.file
    return Scanned(path, read_curves(path))


def _wanted(config: Config) -> bool:
    """Say whether a chain cuts by a scan of its own network."""
    cut = config.prune.cut
    return isinstance(cut, MaxDropCut | BudgetCut) and cut.scan == THIS_RUN


def _digests(result: Scanned) -> Mapping[str, str]:
    return {"curves": digest_of_file(result.file)}


SCAN = Stage(
    name="scan",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS, "prune.params", "prune.criterion"),
    harmless=LOADING,
    files=("data.ground_truth",),
    splits=("val",),
    needs=("train.weights",),
    digests=_digests,
    makes=lambda _: (CURVES,),
    wanted=_wanted,
    options=SensitivityOptions(),
)
