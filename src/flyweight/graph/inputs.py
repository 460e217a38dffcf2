"""Example inputs: described in plain values, drawn again from the description."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

InputSpec = Any
"""A tensor is `(shape, dtype)`; lists, tuples and dictionaries hold specs; the rest is itself."""


def describe(value: Any) -> InputSpec:
    """Return shapes and types of the tensors in `value`, in its own structure."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), str(value.dtype).removeprefix("torch."))
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    return value


def draw(spec: InputSpec, generator: torch.Generator, like: Tensor) -> Any:
    """Return inputs of `spec` with values in [0, 1) on the device of `like`."""
    if isinstance(spec, Mapping):
        return {key: draw(item, generator, like) for key, item in spec.items()}
    if _is_tensor(spec):
        shape, dtype = spec
        drawn = torch.rand(tuple(shape), generator=generator)
        return drawn.to(like.device, getattr(torch, dtype))
    if isinstance(spec, (list, tuple)):
        return [draw(item, generator, like) for item in spec]
    return spec


def freeze_spec(spec: InputSpec) -> InputSpec:
    """Return a spec as `describe` gave it from what JSON made of it."""
    if isinstance(spec, Mapping):
        return {key: freeze_spec(item) for key, item in spec.items()}
    if _is_tensor(spec):
        return (tuple(spec[0]), spec[1])
    return [freeze_spec(item) for item in spec] if isinstance(spec, list) else spec


def _is_tensor(spec: InputSpec) -> bool:
    if not (isinstance(spec, (list, tuple)) and len(spec) == 2 and isinstance(spec[1], str)):
        return False
    shape, dtype = spec
    return (
        isinstance(shape, (list, tuple))
        and all(isinstance(size, int) for size in shape)
        and isinstance(getattr(torch, dtype, None), torch.dtype)
    )


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested sequences, mappings and objects with attributes, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        yield from tensors_in(vars(value))
