"""What a run is given: the values between `fit` and the processes that do it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch
from flyweight.tasks.task import Task

BEST = "best_model.safetensors"
FINAL = "model_final.safetensors"

TrainLoader = Callable[[int, int, int], Iterable[Batch]]
ValLoader = Callable[[int, int], Iterable[Batch]]
SaveModel = Callable[[nn.Module, dict[str, float], Path], None]


@dataclass(frozen=True)
class Loaders:
    """Where batches come from. Several devices need functions that pickle, so no lambdas.

    Attributes:
        train: Called with `(start_step, rank, world_size)`; yields this rank's batches of the
            global steps `start_step`..`steps - 1`.
        val: Called with `(rank, world_size)`; yields this rank's share of the images to
            evaluate. Without it nothing is evaluated and only the last weights are saved.
    """

    train: TrainLoader
    val: ValLoader | None = None


@dataclass(frozen=True)
class Run:
    """The arguments of `fit`, as every process of the run gets them.

    Attributes:
        model: What trains.
        task: Loss, decoding and metric.
        loaders: Batches to train and to evaluate on.
        config: How to train.
        folder: Gets state, logs and checkpoints.
        resume: The state to go on from.
        save_model: Writes a checkpoint.
    """

    model: nn.Module
    task: Task
    loaders: Loaders
    config: TrainConfig
    folder: Path
    resume: Path | None
    save_model: SaveModel | None
