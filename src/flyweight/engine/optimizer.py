"""Optimizer of a training run: groups of parameters, rates, and its state on resume."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flyweight.config.training import TrainConfig
from flyweight.errors import CheckpointError, ConfigError, nearest


def make_optimizer(
    model: nn.Module,
    config: TrainConfig,
    *,
    own: nn.Module | None = None,
    own_factor: float = 1.0,
) -> Optimizer:
    """Return the optimizer for the trainable parameters of `model`.

    Its learning rates are those of the first step; `set_rate` changes them at every step.

    Args:
        model: The network.
        config: Optimizer, rate, decay and factors.
        own: Modules of the objective, trained too.
        own_factor: Multiplies the learning rate of `own`.

    Raises:
        ConfigError: A pattern of `rate_factors` fits no parameter.
    """
    groups = parameter_groups(model, config.weight_decay, config.rate_factors)
    if own is not None:
        groups += parameter_groups(own, config.weight_decay, {"*": own_factor})
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        optimizer: Optimizer = torch.optim.AdamW(groups, betas=betas)
    elif config.optimizer == "rmsprop":
        # Paddle's defaults for what is not in its configs.
        optimizer = torch.optim.RMSprop(groups, momentum=config.momentum, alpha=0.95, eps=1e-6)
    else:
        optimizer = torch.optim.SGD(groups, momentum=config.momentum)
    set_rate(optimizer, config.learning_rate)
    return optimizer


def keep_state(optimizer: Optimizer, earlier: Optimizer) -> None:
    """Give `optimizer` the state that `earlier` has of the parameters that both train."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in earlier.state:
                state = earlier.state[parameter].items()
                optimizer.state[parameter] = {k: _laid_out(v, parameter) for k, v in state}


def restore_state(optimizer: Optimizer, saved: Mapping[str, Any], path: Path) -> None:
    """Load what `optimizer.state_dict()` gave when the state at `path` was saved.

    Raises:
        CheckpointError: It is the state of an optimizer of other parameters.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    try:
        ours = [len(group["params"]) for group in optimizer.param_groups]
        theirs = [len(group["params"]) for group in saved["param_groups"]]
        held = {
            place: {name: _laid_out(value, parameters[place]) for name, value in state.items()}
            for place, state in saved["state"].items()
        }
        if ours != theirs:
            raise ValueError(f"groups of {theirs} parameters where {ours} are trained")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"A resumed run must keep its optimizer. Received a state in '{path}' with another: "
            f"{error}. Build the same model, or train without resume."
        ) from error
    optimizer.load_state_dict({**saved, "state": held})


def _laid_out(value: Any, parameter: Tensor) -> Any:
    """Return a tensor in the parameter's order of axes in memory, as it was before it was saved.

    The optimizer's sums may differ in the last bit where the order in memory is another.
    """
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if value.shape != parameter.shape:
        raise ValueError(f"shape {tuple(value.shape)} where {tuple(parameter.shape)} is needed")
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group of parameters `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def parameter_groups(
    model: nn.Module, weight_decay: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters into weights, which decay, and norms and biases, which do not.

    Norms and biases are recognised by their shape: they have at most one axis.

    Args:
        model: The network.
        weight_decay: Decay of weights.
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
                f"A pattern of rate_factors must fit a trainable parameter. Received: "
                f"'{pattern}'. {nearest(pattern, names)}"
            )
        found.update(dict.fromkeys(fitting, factor))
    return found
