"""The optimizer of a run."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.errors import ConfigError, nearest


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer for the trainable parameters of `model`.

    Its learning rates are those of the first step; `set_rate` sets them anew at every step.

    Raises:
        ConfigError: A pattern of `rate_factors` fits no parameter.
    """
    groups = parameter_groups(model, config.weight_decay, config.rate_factors)
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, betas=betas)
    elif config.optimizer == "rmsprop":
        # Paddle's defaults for what is not in its configs.
        optimizer = torch.optim.RMSprop(groups, momentum=config.momentum, alpha=0.95, eps=1e-6)
    else:
        optimizer = torch.optim.SGD(groups, momentum=config.momentum)
    set_rate(optimizer, config.learning_rate)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def parameter_groups(
    model: nn.Module, weight_decay: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Split what trains into weights, which decay, and norms and biases, which do not.

    Norms and biases are told by their shape: they are the parameters with at most one axis.

    Args:
        model: The network.
        weight_decay: Of weights.
        factors: See `TrainConfig.rate_factors`; each group holds parameters of one factor.

    Raises:
        ConfigError: A pattern fits no parameter.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    factor_of = _factors(list(trained), factors or {})
    groups = []
    for factor in sorted(set(factor_of.values()), reverse=True):
        members = [parameter for name, parameter in trained.items() if factor_of[name] == factor]
        for decay, chosen in (
            (weight_decay, [p for p in members if p.ndim > 1]),
            (0.0, [p for p in members if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
    return [group for group in groups if group["params"]]


def _factors(names: list[str], patterns: Mapping[str, float]) -> dict[str, float]:
    found = dict.fromkeys(names, 1.0)
    for pattern, factor in patterns.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(
                f"A pattern of rate_factors must fit a parameter that trains. Received: "
                f"'{pattern}'. {nearest(pattern, names)}"
            )
        found.update(dict.fromkeys(fitting, factor))
    return found
