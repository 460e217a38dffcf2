"""Evaluators, which turn outputs into a metric: tasks, and functions of one number per image."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from flyweight.data.batch import Batch

if TYPE_CHECKING:  # Tasks import PIL, which a dry run does not need.
    from flyweight.tasks.task import Metric

Score = Callable[[Any, Any], Tensor]
"""Maps a network's outputs and a batch to one number per image, `(n,)`; larger is better."""


class Evaluator(Protocol):
    """Turns a network's outputs into a metric; every `Task` is an evaluator.

    Attributes:
        primary: Name of the metric's number that counts; larger is better.
    """

    primary: str

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Return the raw outputs of `model` for `batch`."""

    def decode(self, outputs: Any, batch: Any) -> Any:
        """Turn raw outputs into predictions."""

    def metric(self) -> "Metric":
        """Return a fresh metric."""


def state_of(evaluator: Evaluator, outputs: Any, batch: Any) -> Any:
    """Return what a fresh metric collects of one batch."""
    metric = evaluator.metric()
    metric.update(evaluator.decode(outputs, batch), batch)
    return metric.state()


def states_by_image(evaluator: Evaluator, outputs: Any, batch: Any) -> list[Any]:
    """Return what fresh metrics collect of each image.

    A batch of unknown kind cannot be split: its images give one state together.
    """
    predictions = evaluator.decode(outputs, batch)
    if isinstance(batch, Batch):
        shares = [Batch(batch.images[i : i + 1], (t,)) for i, t in enumerate(batch.targets)]
    elif isinstance(evaluator.metric(), MeanMetric):
        shares = [batch] * len(predictions)
    else:
        return [state_of(evaluator, outputs, batch)]
    found = []
    for place, share in enumerate(shares):
        metric = evaluator.metric()
        metric.update(predictions[place : place + 1], share)
        found.append(metric.state())
    return found


class Mean:
    """Evaluator of a function: the mean of one number per image.

    Args:
        score: Returns the numbers.
    """

    primary = "mean"

    def __init__(self, score: Score) -> None:
        self.score = score

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the model on the first item of a batch."""
        return model(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def decode(self, outputs: Any, batch: Any) -> Tensor:
        """Return the numbers of the images."""
        return torch.as_tensor(self.score(outputs, batch)).double().reshape(-1)

    def loss_at_rest(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the negative mean, a loss that falls as the numbers rise."""
        return -torch.as_tensor(self.score(self.forward(model, batch), batch)).mean()

    def metric(self) -> "MeanMetric":
        """Return a fresh metric."""
        return MeanMetric(self.primary)


class MeanMetric:
    """Metric: the mean of one number per image.

    Args:
        name: The name of the number.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.total, self.count = 0.0, 0

    def update(self, predictions: Tensor, batch: Any) -> None:
        """Add the numbers of a batch."""
        self.total += float(predictions.sum())
        self.count += len(predictions)

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        return {self.name: self.total / max(self.count, 1)}

    def state(self) -> tuple[float, int]:
        """Return the sum and the count."""
        return self.total, self.count

    def merge(self, state: tuple[float, int]) -> None:
        """Add the sum and the count of another metric."""
        self.total += state[0]
        self.count += state[1]
