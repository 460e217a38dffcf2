"""Results on the meta device of the operations that networks consist of most.

PyTorch computes these in Python, on top of a compiler that takes longer to import than a network
takes to trace. Only shapes, types and layouts matter here. What is unusual is left to PyTorch.
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
    result = known(*args, **kwargs)
    return func(*args, **kwargs) if result is NotImplemented else result


def _convolved(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Any:
    """Return the result of a plain convolution; NotImplemented where PyTorch may refuse it.

    The size of each axis is `(size + 2 padding - dilation (kernel - 1) - 1) // stride + 1`, see
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html.
    """
    usual = (
        source.ndim == weight.ndim
        and source.shape[1] == weight.shape[1] * groups
        and weight.shape[0] % groups == 0
        and (bias is None or bias.shape == weight.shape[:1])
        and source.dtype == weight.dtype
        and source.is_contiguous()  # The layout of the result follows that of both.
        and weight.is_contiguous()
    )
    if isinstance(padding, str) or not usual:
        return NotImplemented
    sizes = _window_counts(source.shape[2:], weight.shape[2:], stride, padding, dilation)
    if source.numel() == 0 or min(sizes) < 1:
        return NotImplemented
    return source.new_empty((source.shape[0], weight.shape[0], *sizes))


def _max_pooled(
    source: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    """Return the result of `max_pool2d`; NotImplemented where PyTorch may refuse it."""
    if (
        source.ndim != 4
        or ceil_mode
        or not source.is_contiguous()
        or 2 * max(padding) > min(kernel)
    ):
        return NotImplemented
    sizes = _window_counts(source.shape[2:], kernel, stride or kernel, padding, dilation)
    if source.numel() == 0 or min(sizes) < 1:
        return NotImplemented
    return source.new_empty((*source.shape[:2], *sizes))


def _window_counts(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return how many positions of a window each axis has; a single value holds for all axes."""
    settings = [
        list(value) * len(sizes) if len(value) == 1 else list(value)
        for value in (kernel, stride, padding, dilation)
    ]
    return [
        (size + 2 * pad - step * (width - 1) - 1) // jump + 1
        for size, width, jump, pad, step in zip(sizes, *settings, strict=True)
    ]


def _pooled_to(source: Tensor, size: Sequence[int]) -> Any:
    """Return the result of `adaptive_avg_pool2d`; NotImplemented where PyTorch may refuse it."""
    usual = source.ndim == 4 and source.is_contiguous() and source.numel() > 0 and min(size) > 0
    return source.new_empty((*source.shape[:2], *size)) if usual else NotImplemented


def _upsampled(source: Tensor, size: Sequence[int] | None, *settings: Any, **named: Any) -> Any:
    """Return the result of `interpolate`; NotImplemented where PyTorch may refuse it."""
    scales = named.get("scale_factors", settings[-1] if settings else None)
    if size is None and scales is not None:
        size = [int(length * scale) for length, scale in zip(source.shape[2:], scales, strict=True)]
    if size is None or source.ndim != len(size) + 2 or not source.is_contiguous():
        return NotImplemented
    if source.numel() == 0 or min(size) < 1:
        return NotImplemented
    return source.new_empty((*source.shape[:2], *size))


def _elementwise(source: Any, other: Any, *_: Any, **__: Any) -> Any:
    """Return the result where one operand has its shape; NotImplemented where neither has."""
    if not isinstance(source, Tensor) or not source.is_contiguous():
        return NotImplemented
    if not isinstance(other, Tensor):
        alike = source.is_floating_point() and isinstance(other, int | float)
        return source.new_empty(source.shape) if alike else NotImplemented
    if other.dtype != source.dtype or other.ndim != source.ndim or not other.is_contiguous():
        return NotImplemented
    large, small = (source, other) if source.numel() >= other.numel() else (other, source)
    # One value per channel, most often: its other axes have the size 1.
    fits = all(n in (1, size) for n, size in zip(small.shape, large.shape, strict=True))
    return large.new_empty(large.shape) if fits else NotImplemented


def _group_normalised(source: Tensor, num_groups: int, *_: Any, **__: Any) -> Any:
    """Return the result of `group_norm`; NotImplemented where PyTorch may refuse it."""
    usual = source.ndim > 1 and source.is_contiguous() and source.shape[1] % num_groups == 0
    return source.new_empty(source.shape) if usual else NotImplemented


def _like_input(source: Tensor, *_: Any, **__: Any) -> Tensor:
    # PyTorch writes `empty_like` in Python, too.
    return source.new_empty(source.shape) if source.is_contiguous() else torch.empty_like(source)


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
    batch_norm dropout elu gelu hardsigmoid hardswish hardtanh layer_norm leaky_relu
    mish relu relu6 sigmoid silu
"""

_KNOWN: dict[str, Callable[..., Any]] = {
    "cat": _concatenated,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolved),
    **dict.fromkeys(("add", "mul", "sub"), _elementwise),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d"), _upsampled),
    "adaptive_avg_pool2d": _pooled_to,
    "max_pool2d": _max_pooled,
    "group_norm": _group_normalised,
    "lstm": _recurrent,
    "gru": _recurrent,
    **dict.fromkeys(_SAME_SHAPE.split(), _like_input),
}
