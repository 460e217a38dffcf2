"""The optimizer of a run."""

from typing import Any

import torch
from torch import nn

from flyweight.engine.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer for the trainable parameters of `model`.

    Its learning rate is that of the first step; the loop sets it anew at every step.
    """
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split what trains into weights, which decay, and norms and biases, which do not.

    Norms and biases are told by their shape: they are the parameters with at most one axis.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
