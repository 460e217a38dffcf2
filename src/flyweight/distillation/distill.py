"""Distillation of a student in one call: taps, objective, training, and what has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from torch import Tensor, nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch
from flyweight.distillation.distill_objective import DistillObjective
from flyweight.distillation.distillation_plan import DistillationPlan
from flyweight.distillation.distiller import Distiller, TapNames
from flyweight.distillation.strategies import Strategy
from flyweight.distillation.teacher import Teacher
from flyweight.engine.fit import FitResult, fit
from flyweight.engine.hooks import Hook
from flyweight.engine.run import Loaders, SaveModel
from flyweight.errors import DataError
from flyweight.progress import Progress, progress_of
from flyweight.tasks.task import Task


@dataclass(frozen=True)
class Distillation:
    """The result of a distillation.

    Attributes:
        fit: Of the training; the checkpoints are the student's.
        plans: What was compared, for each teacher.
        strategy: The losses.
        before: How alike the features were at each tap before training: `similarity.linear_cka`.
        after: Likewise after it.
    """

    fit: FitResult
    plans: tuple[DistillationPlan, ...]
    strategy: Strategy
    before: Mapping[str, float]
    after: Mapping[str, float]


class DistillOptions(TypedDict, total=False):
    """The optional parts of a distillation.

    Attributes:
        taps: As for `Distiller`.
        images: `(n, 3, h, w)` to choose taps and to compare features on; by default those of the
            first batch to evaluate on, or else to train on.
        resume: As for `engine.fit.fit`.
        save_model: Likewise.
        hooks: Likewise.
        progress: Likewise.
    """

    taps: TapNames | None
    images: Tensor | None
    resume: bool | Path
    save_model: SaveModel | None
    hooks: Sequence[Hook]
    progress: Progress | bool


def distill(
    student: nn.Module,
    teacher: nn.Module | Teacher | Sequence[nn.Module | Teacher],
    task: Task,
    loaders: Loaders,
    config: TrainConfig,
    *,
    strategy: Strategy | str | None = None,
    save_dir: Path,
    **options: Unpack[DistillOptions],
) -> Distillation:
    """Train `student` in place against its teacher; it ends with the last weights or their average.

    The teacher is frozen: it runs in evaluation mode, without gradients, and stays as it is.

    Args:
        student: Dense, pruned or quantized.
        teacher: Any module, a `Teacher`, or several of them.
        task: Of the student: loss, decoding and metric.
        loaders: Batches to train and to evaluate on.
        config: How to train; `recipe.short_recipe` makes a short one.
        strategy: A `Strategy` or its name; None chooses by what the student returns.
        save_dir: Gets state, logs and checkpoints, as for `engine.fit.fit`.
        **options: See `DistillOptions`.

    Raises:
        ConfigError: The networks do not fit the strategy.
        FlyweightError: As `engine.fit.fit`.
    """
    unknown = sorted(set(options) - set(DistillOptions.__annotations__))
    if unknown:
        raise TypeError(f"distill() got an unexpected keyword argument '{unknown[0]}'")
    images = options.get("images")
    if images is None:
        images = _first(loaders).images
    device = next((one.device for one in student.parameters()), images.device)
    images = images.to(device)
    taps = options.get("taps")
    distiller = Distiller(student, teacher, taps, strategy, example=images[:1], watch=False)
    for sentence in distiller.cache_plans(images):
        progress_of(options.get("progress", True)).note(sentence)
    distiller.fit_adaptors_(student, images)
    before = distiller.similarity(student, images)
    result = fit(
        student,
        task,
        loaders,
        config,
        save_dir=save_dir,
        resume=options.get("resume", False),
        save_model=options.get("save_model"),
        objective=DistillObjective(task, distiller),
        hooks=options.get("hooks", ()),
        progress=options.get("progress", True),
    )
    after = distiller.similarity(student, images)
    return Distillation(result, distiller.plans, distiller.strategy, before, after)


def _first(loaders: Loaders) -> Batch:
    batches = loaders.val(0, 1) if loaders.val is not None else loaders.train(0, 0, 1)
    batch = next(iter(batches), None)
    if batch is None:
        raise DataError(
            "A distillation must have images to compare features on. Received loaders without any. "
            "Give them: distill(..., images=images)"
        )
    return batch
