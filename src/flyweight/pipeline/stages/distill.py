"""Distillation stage: a student, dense or pruned, trained against a teacher."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight import checkpoint
from flyweight.checkpoint import Checkpoint
from flyweight.config.cut_options import CutOptions
from flyweight.config.distilling import require_strategy
from flyweight.config.pruning import PruneConfig
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.data.loading import val_loader
from flyweight.digests import digest_of_weights
from flyweight.distillation.distill import distill as train_student
from flyweight.distillation.fit_of_networks import kind_of_outputs, require_labels
from flyweight.distillation.recipe import clip_norm_of, short_recipe
from flyweight.distillation.seen_tensors import see_network
from flyweight.distillation.strategies import Strategy, strategy_for
from flyweight.distillation.teacher import MatchedInput, Teacher
from flyweight.distillation.teacher_cache import OutputCache
from flyweight.engine.evaluate import evaluate
from flyweight.engine.run import BEST
from flyweight.errors import FileError
from flyweight.files import write_text
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.belonging import require_architecture, require_same_labels
from flyweight.pipeline.distillation_curves import NUMBERS
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import (
    Saver,
    load_model,
    loaders_for,
    open_data,
    task_for,
    task_of,
    val_batches,
)
from flyweight.pipeline.network_plans import example_input, trace_model, weightless, with_cut
from flyweight.pipeline.networks import kind_of, own_builder, require_training_sides
from flyweight.pipeline.preflight import checkpoint_path
from flyweight.pipeline.results import Distilled, Trained, checkpoint_digests, pruned_checkpoint
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
from flyweight.pipeline.stages.train import note_left_out
from flyweight.pipeline.teachers import OpenedTeacher, default_teacher, open_teacher
from flyweight.progress import Progress, progress_of
from flyweight.report.text_table import metrics_table
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.workspace import Workspace

OUTPUTS = "teacher_outputs"
"""Folder, within that of the distillation, of what the teacher makes of the images."""


@dataclass(frozen=True)
class DistillOptions:
    """What the caller of the stage chooses besides the config.

    Attributes:
        params: Layers to prune first, as `--pruned-params` takes them; empty to prune none. A
            pruned student must have been pruned so.
        ratios: Their ratios.
        criterion: How channels are scored; empty for `l1_norm`.
    """

    params: str = ""
    ratios: str = ""
    criterion: str = ""

    @property
    def cut(self) -> CutOptions:
        """The cut that the options describe."""
        return CutOptions(params=self.params, ratios=self.ratios, criterion=self.criterion)


def distill(
    name: str,
    config: Config,
    options: DistillOptions = DistillOptions(),
    *,
    resume: bool = False,
    progress: Progress | bool = False,
) -> Distilled:
    """Train the config's network against a teacher, in `save_dir/NAME/distilled`.

    The student is that of `weights`, or else the best checkpoint in the run folder. The teacher is
    that of the section `distill`; a pruned student without one is taught by the dense network in
    the run folder, or by the network that it is now cut from.

    Args:
        name: Of the run.
        config: Student, data, teacher and training.
        options: Ratios to prune with first.
        resume: Resume from the state of an interrupted distillation, if there is one.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: Student, teacher, data or a setting is unusable, or they do not fit.
    """
    folder, reports = Path(config.save_dir) / name, progress_of(progress)
    _check(config)
    student = checkpoint_path(name, config, "")
    require_architecture(checkpoint.read(student), config, student)
    section = config.distill
    if not section.names_teacher:
        is_cut = options.cut.given
        path = default_teacher(name, config, student, is_cut=is_cut, progress=reports)
        section = section.model_copy(update={"teacher": str(path)})
        config = config.model_copy(update={"distill": section})
    workspace = DISTILL.workspace(folder, in_chain=True)
    with workspace.locked():
        require_training_sides(config)
        weightless(config)  # A network that cannot be built is refused before the data are read.
        open_teacher(section, config)  # So is a teacher.
        data = open_data(config, save_dir=folder)
        note_left_out(data, reports)
        inputs = Inputs(name, data, options=options, resume=resume, progress=reports)
        inputs = replace(inputs, results={"train": Trained(student, {}, 0.0)})
        result: Distilled = by_hand(DISTILL, config, inputs, workspace)
    return result


def _check(config: Config) -> None:
    require_strategy(config.distill.strategy_name)


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Distilled:
    say = inputs.progress.note
    student, found = _student(inputs, settings)
    teacher = _teacher(inputs, settings)
    say(f"teacher: {teacher.source}")
    kind = kind_of(settings)
    strategy = chosen_strategy(settings, student)
    require_labels(inputs.splits.labels, teacher.labels, strategy)
    task = task_of(student, inputs.splits.labels, settings)
    before = evaluate_model(student, settings, inputs.splits.val, progress=inputs.progress)
    say(f"before distillation\n{metrics_table(before)}")
    theirs = teacher_metrics(teacher, settings, inputs)
    last = found.transforms[-1].kind if found.transforms else ""
    removed = removed_share(student, settings)
    how = training_of(settings, removed, repaired=last == "repair")
    note_parent(student, Parent("teacher", digest_of_weights(teacher.model.state_dict())))
    matched = MatchedInput(settings.preprocessing, teacher.preprocessing, kind == "classify")
    cache = _cache(settings, how, inputs, workspace.folder)
    made = train_student(
        student.train(),
        Teacher(teacher.model, matched, settings.distill.precision, cache),
        task,
        loaders_for(settings, how, inputs.splits),
        how,
        strategy=strategy,
        save_dir=workspace.folder,
        taps=settings.distill.taps or None,
        images=_images(settings, inputs),
        resume=inputs.resume,
        save_model=Saver(settings, found.labels, kind, measured_on=inputs.splits.val.name),
        progress=inputs.progress,
    )
    saved = made.fit.best_path or made.fit.final_path or workspace.folder / BEST
    result = Distilled(
        checkpoint=saved,
        primary=task.primary,
        before=before,
        metrics=made.fit.best_metrics or made.fit.last_metrics,
        teacher=theirs,
        similarity={name: (value, made.after[name]) for name, value in made.before.items()},
    )
    write_text(workspace.folder / NUMBERS, json.dumps(_numbers_of(result), indent=1))
    return result


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Distilled:
    path = workspace.folder / NUMBERS
    must = "The numbers of a distillation must be as they were written."
    with refusing(FileError, must, f"'{path}'", "Start again with --fresh."):
        numbers = json.loads(read_text(path))
        similarity = {name: (one, two) for name, (one, two) in numbers["similarity"].items()}
        keys = ("primary", "before", "metrics", "teacher")
        return Distilled(
            checkpoint=workspace.folder / BEST,
            similarity=similarity,
            **{key: numbers[key] for key in keys},
        )


def _numbers_of(result: Distilled) -> Mapping[str, Any]:
    return {key: value for key, value in vars(result).items() if key != "checkpoint"}


def _student(inputs: Inputs, settings: Config) -> tuple[nn.Module, Checkpoint]:
    """Return the network to train: of an earlier stage, or of a checkpoint, cut now if asked."""
    results = inputs.results
    path = pruned_checkpoint(results) if "prune" in results else results["train"].checkpoint
    model, found = load_model(path, settings)
    inputs.progress.note(f"student: {path}")
    require_same_labels(found.labels, inputs.splits.labels, path)
    options: DistillOptions = inputs.options
    if options.cut.given:
        cut, build = options.cut.cut(PruneConfig()), own_builder(settings)
        model = with_cut(model, found, settings.preprocessing, cut, build)
    return model, found


def _teacher(inputs: Inputs, settings: Config) -> OpenedTeacher:
    section = settings.distill
    if not section.names_teacher:
        dense: Trained = inputs.results["train"]
        section = section.model_copy(update={"teacher": str(dense.checkpoint)})
    return open_teacher(section, settings)


def chosen_strategy(settings: Config, student: nn.Module) -> Strategy:
    """Return the strategy that a config names, with its weight and temperature.

    Args:
        settings: Name it.
        student: The automatic strategy depends on what it returns.

    Raises:
        ConfigError: There is no such strategy.
    """
    section, images = settings.distill, example_input(settings.preprocessing)[0]
    kind = kind_of_outputs(student, see_network(student, images))
    strategy = strategy_for(section.strategy_name, kind).scaled(section.weight)
    return replace(strategy, temperature=section.temperature)


def teacher_metrics(
    teacher: OpenedTeacher, settings: Config, inputs: Inputs
) -> Mapping[str, float]:
    """Return the metrics of a teacher on the validation split, on images as it expects them."""
    if teacher.labels not in ((), inputs.splits.labels):
        return {}
    kind, labels = kind_of(settings), inputs.splits.labels
    task = task_for(teacher.model, labels, settings.tasks, kind)
    batches = val_loader(
        inputs.splits.val,
        preprocessing=teacher.preprocessing,
        batch_size=settings.eval_batch_size,
        num_workers=settings.train.num_workers,
    )
    return evaluate(teacher.model, task, batches, progress=inputs.progress)


def removed_share(student: nn.Module, settings: Config) -> float:
    """Return the share of the dense network's multiply-adds that a student lacks."""
    dense = trace_model(weightless(settings), settings.preprocessing).cost().macs
    return 1 - trace_model(student, settings.preprocessing).cost().macs / max(dense, 1)


def training_of(settings: Config, removed: float, *, repaired: bool = False) -> TrainConfig:
    """Return how to train a student.

    Args:
        settings: Say which recipe.
        removed: Share of the dense network's multiply-adds that it lacks.
        repaired: Whether it was repaired after the cut.
    """
    section, base = settings.distill, fine_tuning(settings)
    if section.recipe == "finetune":
        return base if section.steps is None else _shortened(base, section.steps)
    usual = base.steps if base != settings.train else max(base.steps // 3, 1)
    steps = section.steps or usual
    clip_norm = clip_norm_of(kind_of(settings), settings.train)
    return short_recipe(settings.train, removed, steps, repaired=repaired, clip_norm=clip_norm)


def _shortened(config: TrainConfig, steps: int) -> TrainConfig:
    milestones = tuple(at for at in config.milestones if at < steps)
    warmup = min(config.warmup_steps, steps)
    return config.model_copy(
        update={"steps": steps, "milestones": milestones, "warmup_steps": warmup}
    )


def _cache(settings: Config, how: TrainConfig, inputs: Inputs, folder: Path) -> OutputCache | None:
    limit = settings.distill.cache_bytes
    if not limit:
        return None
    repeats, count = settings.augment.repeats(kind_of(settings)), how.steps * how.batch_size
    inputs_of_run = min(count, len(inputs.splits.train)) if repeats else count
    return OutputCache(folder / OUTPUTS, limit, inputs=inputs_of_run, repeats=repeats)


def _images(settings: Config, inputs: Inputs) -> Tensor:
    """Return validation images to compare features on."""
    wanted, size = settings.distill.similarity_images, settings.eval_batch_size
    taken = islice(val_batches(settings, inputs.splits.val), -(-wanted // size))
    return torch.cat([batch.images for batch in taken])[:wanted]


DISTILL = Stage(
    name="distill",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS, "augment", "finetune", "train", "distill"),
    harmless=(
        *LOADING,
        *(f"train.{key}" for key in sorted(HARMLESS - {"num_workers"})),
        *(f"finetune.{key}" for key in sorted(HARMLESS)),
        "distill.cache_bytes",
    ),
    files=("data.ground_truth", "distill.teacher", "distill.teacher_pretrained"),
    splits=("train", "val"),
    needs=("train.weights", "prune.weights"),
    digests=checkpoint_digests,
    makes=lambda _: (BEST, NUMBERS),
    wanted=lambda config: config.distill.in_chain,
    check=_check,
    options=DistillOptions(),
    folder="distilled",
)
