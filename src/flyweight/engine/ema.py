"""Exponential moving average of a model's parameters and buffers."""

import copy

import torch
from torch import nn


class Ema:
    """The average of a model, kept beside it; evaluation and saving use the average.

    Attributes:
        model: A copy of the model with the averaged weights, in evaluation mode.
        decay: The value that the decay grows to.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards `model` after the optimizer step with 0-based number `step`.

        Floating-point tensors are averaged; counters are copied.
        """
        new = model.state_dict()
        pairs = [(mean, new[name]) for name, mean in self.model.state_dict().items()]
        floating = [(mean, value) for mean, value in pairs if mean.is_floating_point()]
        if floating:
            weight = 1.0 - warmed_decay(self.decay, step)
            torch._foreach_lerp_(
                [mean for mean, _ in floating], [value for _, value in floating], weight
            )
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)


def warmed_decay(decay: float, step: int) -> float:
    """Return the decay at `step` (0-based), lower at first so that the start is forgotten.

    The rule `min(decay, (1 + updates) / (10 + updates))` is that of TensorFlow's
    `ExponentialMovingAverage`, with `updates` counted from 1.

    Example:
        >>> warmed_decay(0.999, 0) == 2 / 11, warmed_decay(0.999, 10**6)
        (True, 0.999)
    """
    updates = step + 1
    return min(decay, (1.0 + updates) / (10.0 + updates))
