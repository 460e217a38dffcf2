"""The line that a training begins with, and the estimate of its time."""

import copy
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from typing import TypeVar

import torch
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch
from flyweight.engine.run import Sizes
from flyweight.errors import counted
from flyweight.progress import Progress, progress_over
from flyweight.tasks.task import Task

Item = TypeVar("Item")
_LONG_SECONDS = 5.0
_EVALUATION_SHARE = 1 / 3
"""Time of an image in evaluation, as a share of its time in training: forward without backward."""


def seconds_of_a_step(model: nn.Module, task: Task, batch: Batch) -> float | None:
    """Return about how long a training step lasts; None if the trial fails.

    A copy of the model computes the loss of a batch and its gradients. The model itself does not
    change. The first trial loads libraries, so a second one follows where that takes few seconds.

    Args:
        model: In training mode, on the device of the batch.
        task: Has the loss.
        batch: Of the run.
    """
    seconds = None
    try:
        trial = copy.deepcopy(model)
        for _ in range(2):
            began = time.monotonic()
            torch.autograd.backward(task.loss(task.forward(trial, batch), batch)["loss"])
            if batch.images.is_cuda:
                torch.cuda.synchronize()
            seconds = time.monotonic() - began
            if seconds > _LONG_SECONDS:
                break
    except (RuntimeError, ValueError, TypeError):
        return seconds  # The first step raises the error, with its own message.
    return seconds


def shown_evaluation(
    predicted: Iterable[Item], batches: Iterable[Batch], progress: Progress
) -> Iterator[Item]:
    """Yield the predictions of an evaluation and report its progress.

    Args:
        predicted: One item per batch.
        batches: The batches, whose number is the amount of work if they have one.
        progress: Receives the reports.
    """
    total = len(batches) if isinstance(batches, Sized) else None
    return progress_over(predicted, "evaluate", progress, total)


def first_line(
    sizes: Sizes,
    config: TrainConfig,
    steps: int,
    device: torch.device,
    step_seconds: float | None,
) -> str:
    """Return a line on what a training is about to do.

    Args:
        sizes: Of the data.
        config: Of the training.
        steps: Steps that are left.
        device: Where it runs.
        step_seconds: Seconds of a step; None if unknown.

    Example:
        >>> config = TrainConfig(steps=100, batch_size=8, evaluate_every=50)
        >>> line = first_line(Sizes(200, 50, 3), config, 100, torch.device("cpu"), 2.0)
        >>> line.partition(" cpu")[0]
        'training: 200 images, 3 classes, 100 steps of 8 images (4 epochs),'
        >>> line.rpartition(", ")[2]
        'about 0:03:28'
    """
    epochs = steps * config.batch_size / sizes.train
    where = f"{device.type}"
    if device.type == "cpu":
        where += f" with {counted(torch.get_num_threads(), 'thread')}"
    elif device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    parts = [
        counted(sizes.train, "image"),
        "1 class" if sizes.classes == 1 else f"{sizes.classes:,} classes",
        f"{counted(steps, 'step')} of {counted(config.batch_size, 'image')} ({epochs:.3g} epochs)",
        where,
    ]
    if step_seconds is not None:
        seconds = steps * step_seconds + _evaluation_seconds(sizes, config, steps, step_seconds)
        parts.append(f"about {timedelta(seconds=round(seconds))}")
    return f"training: {', '.join(parts)}"


def _evaluation_seconds(
    sizes: Sizes, config: TrainConfig, steps: int, step_seconds: float
) -> float:
    count = max(1, steps // (config.evaluate_every or steps))
    per_image = _EVALUATION_SHARE * step_seconds / config.batch_size
    return count * sizes.val * per_image
