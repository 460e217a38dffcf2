"""Arguments of a training run, as `fit` passes them to the processes of the run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch
from flyweight.engine.hooks import Hook
from flyweight.engine.objective import Objective
from flyweight.progress import Progress
from flyweight.tasks.task import Task

BEST = "best_model.safetensors"
FINAL = "model_final.safetensors"

TrainLoader = Callable[[int, int, int], Iterable[Batch]]
ValLoader = Callable[[int, int], Iterable[Batch]]
SaveModel = Callable[[nn.Module, dict[str, float], Path], None]


@dataclass(frozen=True)
class Sizes:
    """Numbers of a data set, for messages.

    Attributes:
        train: Training images; an epoch has so many.
        val: Images to evaluate on.
        classes: Number of classes.
    """

    train: int
    val: int
    classes: int


@dataclass(frozen=True)
class Loaders:
    """Sources of batches. With several devices they must pickle, so they cannot be lambdas.

    Attributes:
        train: Called with `(start_step, rank, world_size)`; yields this rank's batches of the
            global steps `start_step`..`steps - 1`.
        val: Called with `(rank, world_size)`; yields this rank's share of the images to
            evaluate. Without it nothing is evaluated and only the last weights are saved.
        sizes: Of the data; None where they are unknown, and then no epochs are shown.
    """

    train: TrainLoader
    val: ValLoader | None = None
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Run:
    """The arguments of `fit`, as every process of the run gets them.

    Attributes:
        model: The network to train.
        task: Decoding and metric.
        objective: The loss, and modules that belong to it.
        loaders: Batches to train and to evaluate on.
        config: The settings.
        folder: Gets state, logs and checkpoints.
        resume: The state to continue from.
        save_model: Writes a checkpoint.
        hooks: Code that runs at the steps.
        progress: Receives reports.
    """

    model: nn.Module
    task: Task
    objective: Objective
    loaders: Loaders
    config: TrainConfig
    folder: Path
    resume: Path | None
    save_model: SaveModel | None
    hooks: tuple[Hook, ...]
    progress: Progress | bool
