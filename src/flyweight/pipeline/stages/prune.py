"""Pruning stage: choose channels, cut them, repair, evaluate, fine-tune."""

import math
import shutil
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from flyweight import checkpoint
from flyweight.checkpoint import Checkpoint
from flyweight.config.cuts import BUILT_IN, TAYLOR, THIS_RUN, BudgetCut, Cut, nothing_to_cut
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS
from flyweight.digests import digest_of_weights
from flyweight.engine.run import BEST, FINAL
from flyweight.engine.state import remove_foreign_state, remove_states
from flyweight.errors import FileError, counted
from flyweight.files import replacing, write_text
from flyweight.graph import ModelGraph
from flyweight.measuring.latency_table import read_table
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.belonging import (
    KEPT,
    checkpoint_to_prune,
    no_dense_checkpoint,
    note_absent_layers,
    require_labels_to_prune,
    require_scan,
    uses_in_config,
    uses_of,
)
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import (
    Data,
    Saver,
    load_model,
    loaders_for,
    open_data,
    starting_weights,
    task_of,
    val_batches,
)
from flyweight.pipeline.latency_cuts import NetworkTimer, fitted_cut
from flyweight.pipeline.network_plans import (
    before_cut,
    build_model,
    plan_cut,
    trace_model,
    weightless,
)
from flyweight.pipeline.networks import kind_of, own_builder, require_training_sides
from flyweight.pipeline.pricing import cut_of
from flyweight.pipeline.pruning_text import cost_table, plan_notes
from flyweight.pipeline.results import Pruned, Trained, checkpoint_digests
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stage import (
    INPUT,
    LOADING,
    NETWORK,
    TASKS,
    Inputs,
    Stage,
    by_hand,
    fine_tuning,
)
from flyweight.pipeline.stages.train import TRAIN, note_left_out, train_model
from flyweight.pipeline.version_0_1_0 import digest_as_recorded
from flyweight.progress import SILENT, Progress, progress_of
from flyweight.pruning import Criterion, PruningPlan, taylor
from flyweight.pruning import prune as cut_channels
from flyweight.pruning.repair.repair import RepairReport, RepairStep, repair_
from flyweight.report.text_table import metrics_table
from flyweight.sensitivity import Sensitivity, builtin_curves, read
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.workspace import Workspace

PLAN = "plan.json"
_TAYLOR_BATCHES = 20


@dataclass(frozen=True)
class PruneOptions:
    """What the caller of the pruning stage chooses besides the config.

    Attributes:
        evaluate: Evaluate the pruned network before it is fine-tuned.
        evaluate_repair: Evaluate the dense network and every step of a repair as well.
        finetune: Train after the cut.
        cut_file: Name of the checkpoint before fine-tuning.
    """

    evaluate: bool = False
    evaluate_repair: bool = False
    finetune: bool = True
    cut_file: str = "pruned.safetensors"


def prune(
    name: str,
    config: Config,
    options: PruneOptions = PruneOptions(),
    *,
    resume: bool = False,
    progress: Progress | bool = False,
) -> Pruned:
    """Prune the config's network in `save_dir/NAME`.

    The network is that of `weights`; without `weights` the trained dense one in the run folder, or
    else one with `pretrain_weights`. The section `prune` of the config describes the cut.

    Args:
        name: Of the run.
        config: Model, data, cut and fine-tuning.
        options: Which steps to do.
        resume: Resume from the state of an interrupted fine-tuning, if there is one.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The cut, the data, the weights or a setting is unusable, or another run
            works in the folder.
    """
    folder, reports = Path(config.save_dir) / name, progress_of(progress)
    _check(config)
    cut_of(config.prune, config.model, SILENT.note)
    workspace = PRUNE.workspace(folder, in_chain=False)
    with workspace.locked():
        require_training_sides(config)
        weightless(config)  # A network that cannot be built is refused before the data are read.
        path = checkpoint_to_prune(name, _with_kept(config, workspace) if resume else config)
        data = open_data(config, save_dir=folder)
        require_labels_to_prune(path, config, data.labels)
        note_left_out(data, reports)
        inputs = Inputs(name, data, options=options, resume=resume, progress=reports)
        if path is not None:
            inputs = replace(inputs, results={"train": Trained(path, {}, 0.0)})
        result: Pruned = by_hand(PRUNE, config, inputs, workspace)
    return result


def _with_kept(config: Config, workspace: Workspace) -> Config:
    """Return the config of a resumed run, with the copy of its weights if it has made one.

    The checkpoint that it started from may be the pruned network's by now. A copy of other weights
    is of an earlier pruning in the folder.
    """
    kept, note = workspace.folder / KEPT, workspace.read()
    if not config.weights or note is None or not kept.is_file():
        return config
    if Path(config.weights).parent.resolve() != workspace.folder.resolve():
        return config
    recorded = (note.made_from or {}).get(f"weights of {TRAIN.name}")
    if recorded != digest_of_checkpoint(kept):
        return config
    return config.model_copy(update={"weights": str(kept)})


def _check(config: Config) -> None:
    """Refuse a config without a cut, and files of a cut that cannot be read."""
    cut = config.prune.cut
    if cut is None:
        raise nothing_to_cut()
    scan, table = getattr(cut, "scan", ""), getattr(cut, "latency_table", "")
    if scan == BUILT_IN:
        builtin_curves(config.model)
    elif scan not in ("", THIS_RUN):
        curves, foreign = read(scan), config.prune.foreign_scan
        if curves.made_from:
            uses = uses_in_config(curves, config)
            require_scan(curves, Path(scan), uses, foreign=foreign, say=lambda _: None)
    if table not in ("", THIS_RUN):
        read_table(table)


@dataclass(frozen=True)
class _Cutting:
    """The dense network, the plan and the pruned network before fine-tuning."""

    graph: ModelGraph
    plan: PruningPlan
    small: nn.Module
    metrics: dict[str, float]
    repair: tuple[RepairStep, ...] = ()


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Pruned:
    options: PruneOptions = inputs.options
    found = _cut_before(inputs, settings, workspace)
    if found is None:
        found = _cut_now(inputs, settings, workspace)
    saved, metrics = workspace.folder / options.cut_file, found.metrics
    if options.finetune:
        fitted = train_model(
            found.small.train(),
            settings,
            fine_tuning(settings),
            inputs.splits,
            workspace.folder,
            resume=inputs.resume,
            progress=inputs.progress,
        )
        saved = fitted.best_path or fitted.final_path or saved
        metrics = fitted.best_metrics or fitted.last_metrics
    before, after = found.graph.cost(), found.plan.cost(found.graph)
    file = workspace.folder / PLAN
    return Pruned(saved, found.plan, file, before, after, metrics, found.repair)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Pruned:
    options: PruneOptions = inputs.options
    path = workspace.folder / (BEST if options.finetune else options.cut_file)
    plan = _plan_in(workspace.folder)
    found = checkpoint.read(path)
    graph = _graph_before_cut(found, settings)
    costs = (graph.cost(), plan.cost(graph))
    return Pruned(path, plan, workspace.folder / PLAN, *costs, found.metrics)


def _graph_before_cut(found: Checkpoint, settings: Config) -> ModelGraph:
    """Return the graph that the last cut of a checkpoint was planned on.

    That is not always the graph of the config: the weights may have been pruned before.
    """
    return trace_model(before_cut(found, own_builder(settings)), settings.preprocessing)


def _cut_before(inputs: Inputs, settings: Config, workspace: Workspace) -> _Cutting | None:
    """Return what an interrupted attempt has cut; None where it had not come so far."""
    folder, name = workspace.folder, inputs.options.cut_file
    if not (inputs.unchanged and workspace.has_part(PLAN) and workspace.has_part(name)):
        return None
    path = folder / name
    small, found = load_model(path, settings)
    graph = _graph_before_cut(found, settings)
    inputs.progress.note(f"resumed with the cut of '{path}'")
    return _Cutting(graph, _plan_in(folder), small, dict(found.metrics))


def _cut_now(inputs: Inputs, settings: Config, workspace: Workspace) -> _Cutting:
    options, data, say = inputs.options, inputs.splits, inputs.progress.note
    dense = _dense(inputs, settings, workspace.folder)
    graph = trace_model(dense, settings.preprocessing)
    made = _plan(dense, graph, inputs, settings, workspace)
    for note in plan_notes(made):
        say(note)
    small = cut_channels(dense, made)
    note_parent(small, Parent("dense", digest_of_weights(dense.state_dict())))
    say(cost_table(graph.cost(), made.cost(graph), made))
    steps: tuple[RepairStep, ...] = ()
    if settings.prune.repair:
        report = repair_model(dense, small, made, settings, inputs)
        say(str(report))
        steps = report.steps
    metrics: dict[str, float] = {}
    if options.evaluate:
        metrics = evaluate_model(small, settings, data.val, progress=inputs.progress)
        say(f"before fine-tuning\n{metrics_table(metrics)}")
    Saver(settings, data.labels, kind_of(settings), measured_on=data.val.name)(
        small, metrics, workspace.folder / options.cut_file
    )
    if options.finetune and (inputs.unchanged or not inputs.resume):
        # A training state is of another network here: this work had not come to its training.
        remove_states(workspace.folder)
    elif options.finetune:
        # The dense network's, where an attempt was killed before it wrote anything.
        remove_foreign_state(workspace.folder, small)
    workspace.keep_part(options.cut_file)
    return _Cutting(graph, made, small, metrics, steps)


def _plan(
    dense: nn.Module, graph: ModelGraph, inputs: Inputs, settings: Config, workspace: Workspace
) -> PruningPlan:
    """Return what to cut, as an interrupted attempt has written it, or chosen now and written."""
    path = workspace.folder / PLAN
    if inputs.unchanged and workspace.has_part(PLAN):
        inputs.progress.note(f"resumed with the plan of '{path}'")
        return _plan_in(workspace.folder)
    _require_own_scan(dense, graph, inputs, settings)
    cut = _layer_by_layer(_cut_of(settings, inputs), dense, settings, inputs)
    made = plan_cut(graph, cut, measured_criterion(dense, settings, inputs.splits, cut))
    write_text(path, made.to_json())
    workspace.keep_part(PLAN)
    return made


def _check_inputs(inputs: Inputs, settings: Config) -> None:
    """Refuse a scan of other data, or of other weights where those are known already."""
    named = settings.prune.scan
    if not named or named in (BUILT_IN, THIS_RUN):
        return
    curves, earlier = read(named), inputs.results.get(TRAIN.name)
    if not curves.made_from:
        return
    uses = {**uses_in_config(curves, settings), "data": _scanned_data(curves, inputs)}
    if earlier is not None:
        model, _ = load_model(earlier.checkpoint, settings)
        graph = trace_model(model, settings.preprocessing)
        uses = uses_of(graph, model, settings.preprocessing, uses["data"])
    foreign = settings.prune.foreign_scan
    require_scan(curves, Path(named), uses, foreign=foreign, say=lambda _: None)


def _scanned_data(curves: Sensitivity, inputs: Inputs) -> str:
    """Return the digest of the validation split, in the form in which the scan recorded it."""
    recorded = curves.made_from.get("data", "")
    return digest_as_recorded(recorded, inputs.splits.val, inputs.digest_of("val"))


def _require_own_scan(
    dense: nn.Module, graph: ModelGraph, inputs: Inputs, settings: Config
) -> None:
    """Check that the scan of the cut, where it has one, is of this network, input and data."""
    named, say = settings.prune.scan, inputs.progress.note
    if not named or named == BUILT_IN:
        return
    file = inputs.results["scan"].file if named == THIS_RUN else Path(named)
    curves = read(file)
    uses = uses_of(graph, dense, settings.preprocessing, _scanned_data(curves, inputs))
    require_scan(curves, file, uses, foreign=settings.prune.foreign_scan, say=say)
    note_absent_layers(curves, graph, say)


def _dense(inputs: Inputs, settings: Config, folder: Path) -> nn.Module:
    """Return the network to cut: an earlier result, else a new one with the config's weights."""
    say = inputs.progress.note
    earlier: Trained | None = inputs.results.get("train")
    if earlier is not None:
        model, found = load_model(earlier.checkpoint, settings)
        say(f"weights: {earlier.checkpoint}")
        if found.plans:
            say("note: these weights are pruned already; they are cut further")
        _kept(earlier.checkpoint, folder, inputs)
        return model.train()
    model = build_model(settings)
    started = starting_weights(model, settings)
    say(started.report)
    if started.fresh:
        raise no_dense_checkpoint(
            f"pretrain_weights '{settings.pretrain_weights}', which leave "
            f"{counted(len(started.fresh), 'tensor')} untrained, such as '{started.fresh[0]}'"
        )
    return model


def _kept(path: Path, folder: Path, inputs: Inputs) -> None:
    """Copy a dense checkpoint that the pruned network's is going to replace."""
    replaced = (BEST, FINAL, inputs.options.cut_file)
    if path.parent.resolve() != folder.resolve() or path.name not in replaced:
        return
    with replacing(folder / KEPT) as draft:
        shutil.copyfile(path, draft)
    inputs.progress.note(
        "note: the folder's checkpoints will be the pruned network's; "
        f"'{folder / KEPT}' keeps this one"
    )


def _cut_of(settings: Config, inputs: Inputs) -> Cut:
    """Return the config's cut, with the files that earlier stages of a chain have made for it."""
    made = {}
    if settings.prune.scan == THIS_RUN and "scan" in inputs.results:
        made["scan"] = str(inputs.results["scan"].file)
    if settings.prune.latency_table == THIS_RUN and "layers" in inputs.results:
        made["latency_table"] = str(inputs.results["layers"].file)
    return cut_of(settings.prune.model_copy(update=made), settings.model, inputs.progress.note)


def _layer_by_layer(cut: Cut, dense: nn.Module, settings: Config, inputs: Inputs) -> Cut:
    """Return the cut, found by measuring networks where it is within a latency budget."""
    if not isinstance(cut, BudgetCut) or not cut.budget.measured:
        return cut
    table = read_table(cut.latency_table)
    timer = NetworkTimer(
        dense,
        settings.preprocessing,
        threads=table.threads,
        seconds=settings.bench.seconds,
        runtime=table.runtime,
    )
    with timer:
        return fitted_cut(cut, timer, say=inputs.progress.note)[0]


def measured_criterion(
    model: nn.Module, settings: Config, data: Data, cut: Cut
) -> Criterion | None:
    """Return the criterion that `cut` names if it is measured on training images, else None."""
    if cut.criterion != TAYLOR:
        return None
    task = task_of(model, data.labels, settings)
    loading = {"batch_size": settings.train.batch_size, "seed": settings.train.seed}
    steps = {"steps": _TAYLOR_BATCHES, "num_workers": 0}
    wanted = fine_tuning(settings).model_copy(update={**loading, **steps})
    batches = loaders_for(settings, wanted, data).train(0, 0, 1)
    return taylor(model, batches, task.loss_at_rest)


def repair_model(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, settings: Config, inputs: Inputs
) -> RepairReport:
    """Refit `small` in place on training images without augmentation and without their labels.

    Args:
        dense: The network before the cut.
        small: `prune(dense, plan)`.
        plan: What was cut.
        settings: Say how many images to use.
        inputs: Have them, and those to evaluate on where the options ask for that.
    """
    data, say = inputs.splits, inputs.progress.note
    task = task_of(dense, data.labels, settings)

    def metric(model: nn.Module) -> float:
        found = evaluate_model(model, settings, data.val, progress=inputs.progress)
        return found[task.primary]

    size, wanted = settings.eval_batch_size, settings.prune.repair_images
    taken = islice(val_batches(settings, data.train), math.ceil(wanted / size))
    images = torch.cat([batch.images for batch in taken])[:wanted]
    say(f"repair: on {len(images)} training images, without labels")
    batches = [images[at : at + size] for at in range(0, len(images), size)]
    measured = metric if inputs.options.evaluate_repair else None
    return repair_(dense, small, plan, batches, metric=measured, progress=inputs.progress)


def _plan_in(folder: Path) -> PruningPlan:
    path = folder / PLAN
    with refusing(FileError, "A plan must be readable.", f"'{path}'", "Start again with --fresh."):
        return PruningPlan.from_json(read_text(path))


PRUNE = Stage(
    name="prune",
    run=_run,
    read=_read,
    settings=(
        *NETWORK,
        *INPUT,
        *TASKS,
        *("augment", "finetune", "prune", "train.batch_size", "train.seed"),
    ),
    harmless=(
        *(*LOADING, "bench.seconds", "prune.foreign_scan"),
        *(f"finetune.{key}" for key in sorted(HARMLESS)),
    ),
    files=("pretrain_weights", "data.ground_truth", "prune.scan", "prune.latency_table"),
    splits=("train", "val"),
    needs=("train.weights", "scan.curves", "layers.table"),
    digests=checkpoint_digests,
    makes=lambda _: (BEST, PLAN),
    check=_check,
    check_inputs=_check_inputs,
    options=PruneOptions(evaluate=True, cut_file="before_finetuning.safetensors"),
    folder="pruned",
)
