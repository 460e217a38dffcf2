"""Flat inputs: the tensors of an example one by one, as an exported file takes them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flyweight.errors import ExportError
from flyweight.graph.containers import reachable_tensors, with_tensors
from flyweight.graph.example_inputs import Example

Given = Sequence[Any] | Mapping[str, Any] | Tensor | Example
"""An example as a user gives it: positional inputs, or keyword inputs by name, or an `Example`."""
Inputs = tuple[Tensor, ...]
"""The inputs of a file, in order."""
_KEY = re.compile(r"""\[['"](\w+)['"]\]|\.([a-zA-Z]\w*)""")
"""A key or a field in a place such as `kwargs['mask']` or `args[0].image`."""


@dataclass(frozen=True, eq=False)
class FlatInputs:
    """How an example is built from its tensors.

    Attributes:
        example: What the model is called with. Numbers and texts in it are constants of the file.
        tensors: Its tensors in order, in float32 unless they hold whole numbers. A tensor that
            occurs twice inside of one input stands here once.
        names: Names for them, different from each other.
    """

    example: Example
    tensors: Inputs
    names: tuple[str, ...]

    @classmethod
    def of(cls, given: Given) -> "FlatInputs":
        """Return the inputs of an example.

        Raises:
            ExportError: It is no example, or has no tensors.
        """
        example = _as_example(given)
        places = list(_places(example))
        if not places:
            raise ExportError(
                "The example of an export must have tensors. Received none. Give inputs of the "
                "shapes to export, for example (torch.rand(1, 3, 224, 224),)."
            )
        tensors = tuple(as_float32(tensor) for _, tensor in places)
        return cls(example, tensors, _names([place for place, _ in places]))

    def filled(self, tensors: Sequence[Tensor]) -> Example:
        """Return the example with other tensors, given in the order of `tensors`."""
        left = iter(tensors)
        args = tuple(_filled(value, left) for value in self.example.args)
        kwargs = {name: _filled(value, left) for name, value in self.example.kwargs.items()}
        return Example(args, kwargs)


def as_float32(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float32 unless it holds whole numbers."""
    plain = tensor.detach().cpu()
    return plain.float() if plain.is_floating_point() else plain


def batched(inputs: Inputs) -> tuple[bool, ...]:
    """Return which inputs have the batch as their first axis: those as long as the first one."""
    size = next((len(item) for item in inputs if item.ndim), 0)
    return tuple(item.ndim > 0 and len(item) == size for item in inputs)


def with_batch(inputs: Inputs, change: Any) -> Inputs:
    """Return inputs in which `change` was applied to those that have a batch."""
    return tuple(
        change(item) if flag else item for item, flag in zip(inputs, batched(inputs), strict=True)
    )


def _as_example(given: Given) -> Example:
    if isinstance(given, Example):
        return given
    if isinstance(given, Tensor):
        return Example((given,))
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return Example((), dict(given))
    if isinstance(given, (tuple, list)):
        return Example(tuple(given))
    raise ExportError(
        "The example of an export must be a tuple of positional inputs or a mapping of keyword "
        f"inputs. Received an object of type {type(given).__name__}. Write (inputs,)."
    )


def _inputs(example: Example) -> list[tuple[str, Any]]:
    """Return every input of the call with its place."""
    positional = [(f"args[{place}]", value) for place, value in enumerate(example.args)]
    return [*positional, *((f"kwargs[{name!r}]", value) for name, value in example.kwargs.items())]


def _places(example: Example) -> list[tuple[str, Tensor]]:
    found = []
    for place, value in _inputs(example):
        known: set[int] = set()
        for inner, tensor in _tensors_of(value, place):
            if id(tensor) not in known:
                found.append((inner, tensor))
                known.add(id(tensor))
    return found


def _tensors_of(value: Any, place: str) -> list[tuple[str, Tensor]]:
    return [(place, value)] if isinstance(value, Tensor) else list(reachable_tensors(value, place))


def _filled(value: Any, left: Any) -> Any:
    if isinstance(value, Tensor):
        return next(left)
    new: dict[int, Tensor] = {}
    for _, tensor in _tensors_of(value, ""):
        if id(tensor) not in new:
            new[id(tensor)] = next(left)
    return with_tensors(value, lambda tensor: new[id(tensor)])


def _names(places: Sequence[str]) -> tuple[str, ...]:
    """Return names of the innermost keys or fields; where there are none, numbers."""
    if list(places) == ["args[0]"]:
        return ("images",)
    own = [_KEY.findall(place) for place in places]
    named = [(keys[-1][0] or keys[-1][1]) if keys else "" for keys in own]
    return tuple(
        name if name and named.count(name) == 1 else f"input_{index}"
        for index, name in enumerate(named)
    )
