"""Results on the meta device of the operations that networks consist of most.

PyTorch computes these in Python, on top of a compiler that takes longer to import than a network
takes to trace. Only shapes and types matter here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload


def result_of(op: str, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what `func` returns on tensors of the meta device."""
    known = _KNOWN.get(op)
    if known is None or func._overloadname == "data":  # A packed sequence has other arguments.
        return func(*args, **kwargs)
    if func._schema.is_mutable:
        return args[0]
    return known(*args, **kwargs)


def _like_input(source: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(source)


def _concatenated(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    parts = [tensor for tensor in tensors if tensor.ndim > 1 or tensor.numel() > 0]
    size = list(parts[0].shape)
    size[dim] = sum(tensor.shape[dim] for tensor in parts)
    return parts[0].new_empty(size)


def _recurrent(
    source: Tensor, states: Any, weights: Sequence[Tensor], *settings: Any
) -> tuple[Tensor, ...]:
    # The settings are: has_biases, num_layers, dropout, train, bidirectional, batch_first.
    bidirectional = settings[4]
    held = states if isinstance(states, (list, tuple)) else [states]
    width = held[0].shape[-1] * (2 if bidirectional else 1)
    made = source.new_empty((*source.shape[:-1], width))
    return (made, *(torch.empty_like(state) for state in held))


_SAME_SHAPE = """
    batch_norm dropout elu gelu group_norm hardsigmoid hardswish hardtanh layer_norm leaky_relu
    mish relu relu6 sigmoid silu
"""

_KNOWN: dict[str, Callable[..., Any]] = {
    "cat": _concatenated,
    "lstm": _recurrent,
    "gru": _recurrent,
    **dict.fromkeys(_SAME_SHAPE.split(), _like_input),
}
