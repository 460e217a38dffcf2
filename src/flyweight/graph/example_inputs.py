"""Example inputs, their description in plain values, and inputs drawn from a description."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only

InputSpec = Any
"""A tensor is `(shape, dtype)`; lists, tuples and dictionaries hold specs; the rest is itself."""


@dataclass(frozen=True, eq=False)
class Example:
    """What a model is called with, or the description of it.

    Attributes:
        args: Positional inputs; tensors may be nested in lists, tuples and mappings.
        kwargs: Keyword inputs by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> "Example":
        """Return the same with a spec in place of every input."""
        return Example(
            tuple(describe(value) for value in self.args),
            {name: describe(value) for name, value in self.kwargs.items()},
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Example":
        """Return the same with every tensor replaced by what `change` returns."""
        args, kwargs = tree_map_only(Tensor, change, (self.args, dict(self.kwargs)))
        return Example(args, kwargs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with its place, for example `args[0]` or `kwargs['mask']`."""
        for root, tree in (("args", self.args), ("kwargs", dict(self.kwargs))):
            for path, leaf in tree_flatten_with_path(tree)[0]:
                if isinstance(leaf, Tensor):
                    yield root + keystr(path), leaf


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
