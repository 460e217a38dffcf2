"""A mode without chance: dropout passes, and random numbers are constants.

In training mode two networks of different widths draw different random numbers. To be compared,
they run in this mode. What they draw with NumPy and Python begins at the same seed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flyweight.graph.random_states import own_random_numbers

_HALF = 0.5
_DROPOUT_PLACE = 4
"""Of the probability among the arguments of attention."""
_DROPOUTS = """
    dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout
    feature_dropout_ feature_alpha_dropout feature_alpha_dropout_
"""
_DRAWN_IN_PLACE = """
    bernoulli_ uniform_ normal_ exponential_ cauchy_ log_normal_ geometric_ random_
"""
_DRAWN = "rand randn rand_like randn_like bernoulli normal randint randint_like"


@contextmanager
def without_chance(model: nn.Module) -> Iterator[None]:
    """Run `model` so that equal weights give equal results, for this thread alone.

    Args:
        model: A private copy; the dropout of its recurrent layers is set to zero.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
    with own_random_numbers(seed=0), _WithoutChance():
        yield


class _WithoutChance(TorchFunctionMode):
    """Replaces what draws random numbers.

    While it handles a function, the mode is off, so a function of PyTorch that draws random numbers
    inside has a row of its own.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        replacement = _REPLACED.get(getattr(func, "__name__", ""))
        if replacement is None:
            return func(*args, **named)
        return replacement(func, args, named)


def _pass(_: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    return args[0] if args else named["input"]


def _fill(_: Any, args: tuple[Any, ...], __: Mapping[str, Any]) -> Tensor:
    tensor: Tensor = args[0]
    # One is a likely draw of every distribution here, and keeps what a draw decides to keep.
    return tensor.fill_(1)


def _constant(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    drawn = func(*args, **named)
    return torch.full_like(drawn, _HALF if drawn.is_floating_point() else 0)


def _in_order(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    drawn: Tensor = func(*args, **named)
    return torch.arange(len(drawn), dtype=drawn.dtype, device=drawn.device)


def _attention(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if len(args) > _DROPOUT_PLACE:
        args = (*args[:_DROPOUT_PLACE], 0.0, *args[_DROPOUT_PLACE + 1 :])
    elif "dropout_p" in named:
        named["dropout_p"] = 0.0
    return func(*args, **named)


def _several_heads(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    # PyTorch calls its dropout inside, where this mode does not reach.
    return func(*args, **{**named, "training": False})


def _soft_choice(_: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    settings = {"dim": -1, **named, **dict(zip(("logits",), args, strict=False))}
    return nn.functional.softmax(settings["logits"], settings["dim"])


def _mean_slopes(_: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    settings = {"lower": 1 / 8, "upper": 1 / 3, **named}
    settings |= dict(zip(("input", "lower", "upper"), args, strict=False))
    slope = (settings["lower"] + settings["upper"]) / 2
    return nn.functional.leaky_relu(settings["input"], slope)


_REPLACED: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    **dict.fromkeys(_DROPOUTS.split(), _pass),
    **dict.fromkeys(_DRAWN_IN_PLACE.split(), _fill),
    **dict.fromkeys(_DRAWN.split(), _constant),
    "randperm": _in_order,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _several_heads,
    "gumbel_softmax": _soft_choice,
    "rrelu": _mean_slopes,
}
