"""Results that a module keeps for its next run, such as a table of position biases.

They were computed from weights at their present width: they freeze the channels that they meet, and
do not fit a network that was cut. A result is what the module's own code makes again: a run without
it ends with the same tensors in the same place. Traces and cuts are made without it. An attribute
that every run replaces, such as a normalised weight, is no such result: it is never out of date.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.graph.containers import tensors_in
from flyweight.graph.dispatch import plain_attention
from flyweight.graph.example_inputs import Example
from flyweight.graph.isolation import isolated
from flyweight.graph.random_states import own_random_numbers
from flyweight.graph.recording import private_copy
from flyweight.graph.stored import clone_structure, stored_tensors

_CONTAINERS = (dict, list, set, OrderedDict, defaultdict)
_INTERNAL = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class KeptResult:
    """A place where a module keeps what it has computed.

    Attributes:
        path: Of the module.
        attribute: Of the module: a tensor, or a container with tensors.
    """

    path: str
    attribute: str

    def content(self, model: nn.Module) -> Any:
        """Return what `model` keeps here; None where it keeps nothing."""
        return vars(model.get_submodule(self.path)).get(self.attribute)

    def forget(self, model: nn.Module) -> None:
        """Leave a container without its tensors, and an attribute None."""
        value = self.content(model)
        module = model.get_submodule(self.path)
        vars(module)[self.attribute] = None if isinstance(value, Tensor) else _emptied(value)


def results_kept(
    model: nn.Module,
    example: Callable[[], Example],
    cut: Collection[str] = (),
    *,
    values: bool = False,
) -> tuple[KeptResult, ...]:
    """Return the results that `model` keeps and makes again without them.

    Only a model that has tensors in containers or plain attributes is run, and a copy of it; where
    results are not made again together, once for each.

    Args:
        model: Left as it was.
        example: Returns inputs that the model takes in evaluation mode.
        cut: Names of tensors that a cut narrows; they need not be forgotten.
        values: Whether to run on values and to compare these, too; otherwise shapes do.
    """
    places = tuple(_places(model, cut))
    if not places:
        return ()
    inputs = example()
    if _makes_again(model, places, inputs, values=values):
        return places
    alone = places if len(places) > 1 else ()
    return tuple(one for one in alone if _makes_again(model, (one,), inputs, values=values))


def without_results(model: nn.Module, kept: Sequence[KeptResult]) -> nn.Module:
    """Return `model`, or where it keeps results, a copy without them that shares its tensors."""
    if not kept:
        return model
    twin = clone_structure(model)
    for place in kept:
        place.forget(twin)
    return twin


def _places(model: nn.Module, cut: Collection[str]) -> Iterator[KeptResult]:
    own = set(map(id, stored_tensors(model).values())) - {
        id(value) for module in model.modules() for value in vars(module).values()
    }
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            place = f"{path}.{name}" if path else name
            if name in _INTERNAL or place in cut:
                continue
            if isinstance(value, Tensor) or type(value) in _CONTAINERS:
                held = list(tensors_in(value))
                if held and not any(id(one) in own for one in held):
                    yield KeptResult(path, name)


def _makes_again(
    model: nn.Module, places: Sequence[KeptResult], example: Example, *, values: bool
) -> bool:
    """Whether a run makes these results where they are missing; attributes only there."""
    try:
        absent = private_copy(model, values=values)
        for place in places:
            place.forget(absent)
        _run(absent, example, values=values)
        if not all(_same(place.content(model), place.content(absent)) for place in places):
            return False
        attributes = [place for place in places if isinstance(place.content(model), Tensor)]
        if not attributes:
            return True
        present = private_copy(model, values=values)
        before = [place.content(present) for place in attributes]
        _run(present, example, values=values)
    except Exception:  # noqa: BLE001 - any error of the user's code
        return False
    after = [place.content(present) for place in attributes]
    return all(one is other for one, other in zip(before, after, strict=True))


def _run(copied: nn.Module, example: Example, *, values: bool) -> None:
    given = example.mapped(lambda one: one.detach().clone() if values else one.to("meta"))
    attention = plain_attention(copied) if values else nullcontext()
    isolation = isolated(copied, Tensor.is_inference)
    with isolation, own_random_numbers(), attention, torch.inference_mode():
        copied(*given.args, **given.kwargs)


def _emptied(container: Any) -> Any:
    """Return a container of the same kind with what is no tensor and holds none."""
    if not isinstance(container, dict):
        return type(container)(one for one in container if not list(tensors_in(one)))
    left = container.copy()  # Keeps the default of a defaultdict.
    for key, one in container.items():
        if list(tensors_in(one)):
            del left[key]
    return left


def _same(before: Any, after: Any) -> bool:
    """Whether what was made is what was there; a table by size may have had further sizes."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        again = [key for key in before.keys() & after.keys() if list(tensors_in(before[key]))]
        return bool(again) and all(_same(before[key], after[key]) for key in again)
    one, other = list(tensors_in(before)), list(tensors_in(after))
    return len(one) == len(other) and all(map(_equal, one, other))


def _equal(before: Tensor, after: Tensor) -> bool:
    if before.shape != after.shape:
        return False
    known = not (before.is_meta or after.is_meta)
    return not known or torch.allclose(before, after.to(before.dtype), equal_nan=True)
