"""Runs that keep some of their tensors, and the execution of a part of such a run again.

What a later part needs of an earlier one is kept as a value. Operations that write into their
argument are recorded as their counterparts that return a new tensor, so that executing a part again
never changes what is kept.
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map_only

from flyweight.graph.example_inputs import tensors_in
from flyweight.graph.program import Call, Run, Value, values_in
from flyweight.graph.recorder import Recorder
from flyweight.graph.rules import WHOLE


class ReplayError(Exception):
    """A run cannot be executed again in parts, or took another course than the recorded one."""


def record(
    model: nn.Module,
    run: Callable[[], Any],
    keep: Collection[int] = (),
    path: list[str] | None = None,
) -> Run:
    """Return what `run` does with `model`, with some of its tensors.

    Args:
        model: In evaluation mode; call inside `dispatch.evaluating`.
        run: Calls the model, for example `lambda: model(images)`.
        keep: Numbers of the results to keep, of those that a later operation takes; the model's
            own tensors, the inputs and the outputs are kept in any case. Numbers are the same in
            every run of the same operations.
        path: See `recorder.module_paths`; without it no operation knows its module.

    Raises:
        ReplayError: The run writes into a tensor of which another tensor is a view, or returns
            tensors inside of objects, where none can be replaced.
    """
    recorder = _KeepingRecorder(frozenset(keep), path)
    recorder.number_stored(model)
    with recorder:
        returned = run()
    leaves = _tensors(returned)
    if len(leaves) != len(list(tensors_in(returned))):
        raise ReplayError("returns tensors inside of an object")
    outputs = recorder.values(returned)
    made = zip(values_in(outputs), leaves, strict=True)
    return Run(
        calls=tuple(_without_writing(call) for call in recorder.calls),
        outputs=outputs,
        stored=recorder.stored,
        values={**recorder.kept, **{value.number: tensor for value, tensor in made}},
    )


def needed_by(calls: Sequence[Call]) -> set[int]:
    """Return the numbers of the tensors that `calls` take and do not make."""
    made: set[int] = set()
    needed: set[int] = set()
    for call in calls:
        needed.update(number for number in call.reads if number not in made)
        made.update(call.makes)
    return needed


def rerun(
    calls: Iterable[Call],
    values: Mapping[int, Tensor],
    changed: Mapping[int, Tensor],
    outputs: Collection[int] = (),
) -> dict[int, Tensor]:
    """Execute `calls` again and return what they make: `outputs`, and what no later call takes.

    Args:
        calls: In order of execution, for example from `Run.after`.
        values: What was kept of the run.
        changed: Tensors that take the place of kept ones.
        outputs: Numbers of tensors that are wanted even where a later call takes them too.
    """
    calls = tuple(calls)
    now: dict[int, Tensor] = dict(changed)
    last = {number: place for place, call in enumerate(calls) for number in call.reads}
    # A tensor may be an output and an input of a later operation too: it stays to the end.
    last |= dict.fromkeys(outputs, len(calls))
    owned: set[int] = set()  # Made here, and seen through no other tensor.

    def tensor_of(value: Value) -> Tensor:
        found = now.get(value.number)
        return values[value.number] if found is None else found

    for place, call in enumerate(calls):
        args, kwargs = tree_map_only(Value, tensor_of, (call.args, call.kwargs))
        first = call.args[0] if call.args else None
        spent = isinstance(first, Value) and first.number in owned and last[first.number] == place
        spent = spent and (call.func is not _SUM or _alike(args[0], args[1]))
        func = _ANY_LAYOUT.get(call.func, call.func)
        func = _IN_PLACE.get(func, func) if spent else func
        result = func(*args, **kwargs)
        # Found by memory, because schemas do not show it: dropout in evaluation returns its input.
        alone = func in _WRITES or _storages(result).isdisjoint(_storages((args, kwargs)))
        del args, kwargs
        for number in call.reads:
            if last[number] == place:
                now.pop(number, None)
        if not alone:
            owned.difference_update(call.reads)
        for number, tensor in zip(call.makes, _tensors(result), strict=True):
            now[number] = tensor
            if alone:
                owned.add(number)
    return now


_ATEN = torch.ops.aten
_SUM = _ATEN.add.Tensor
_IN_PLACE: Mapping[OpOverload, OpOverload] = {
    _ATEN.relu.default: _ATEN.relu_.default,
    _ATEN.leaky_relu.default: _ATEN.leaky_relu_.default,
    _ATEN.hardtanh.default: _ATEN.hardtanh_.default,
    _ATEN.silu.default: _ATEN.silu_.default,
    _ATEN.hardswish.default: _ATEN.hardswish_.default,
    _ATEN.sigmoid.default: _ATEN.sigmoid_.default,
    _SUM: _ATEN.add_.Tensor,  # Of two tensors of one shape and type.
}
"""Operations whose result may be written over their argument, where nothing else needs that: the
result has its shape and type. It spares an allocation as large as a feature map each time."""
_WRITES = frozenset(_IN_PLACE.values())

_ANY_LAYOUT: Mapping[OpOverload, OpOverload] = {
    _ATEN.view.default: _ATEN.reshape.default,
    _ATEN._unsafe_view.default: _ATEN.reshape.default,
}
"""Operations that refuse some layouts in memory, and those that do the same with any."""


class _KeepingRecorder(Recorder):  # type: ignore[no-untyped-call]
    """Executes operations on values and keeps the requested tensors."""

    def __init__(self, keep: Container[int], path: list[str] | None) -> None:
        super().__init__(WHOLE, path)
        self.kept: dict[int, Tensor] = {}
        self._keep = keep

    def value(self, tensor: Tensor) -> Value:
        """Return the value of a tensor that is read; keep it if requested.

        A result is kept when it is read first, not when it is made: PyTorch copies a new tensor
        that someone else holds, so that this run would have an operation more than others.
        """
        made_here = self.number_of(tensor) is not None
        value = super().value(tensor)
        # What was not made here is the model's own, an input or a constant.
        if not made_here or value.number in self._keep:
            self.kept.setdefault(value.number, tensor)
        return value

    def execute(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Execute an operation; before it writes into a tensor, keep the requested tensors."""
        if func._schema.is_mutable:
            _counterpart(func)
            self._spare(args[0])
        return func(*args, **kwargs)

    def _spare(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()._cdata
        for other in self.seen():
            if other is not tensor and other.untyped_storage()._cdata == storage:
                raise ReplayError("writes into a tensor that another one is a view of")
        number = self.number_of(tensor)
        if number in self.kept:
            self.kept[number] = tensor.clone()


def _without_writing(call: Call) -> Call:
    """Return a call that returns what `call` writes into its first argument."""
    if not call.func._schema.is_mutable:
        return call
    return replace(call, func=_counterpart(call.func))


@cache
def _counterpart(func: OpOverload) -> OpOverload:
    """Return the operation that returns what `func` writes into its first argument.

    Raises:
        ReplayError: There is none.
    """
    space, name = func._schema.name.split("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    if not name.endswith("_") or name.endswith("__") or packet is None:
        raise ReplayError(f"{name} writes into its arguments")
    overload = func._overloadname
    if overload not in packet.overloads():
        raise ReplayError(f"{name}.{overload} has no counterpart that does not write")
    found: OpOverload = getattr(packet, overload)
    return found


def _storages(tree: Any) -> set[int]:
    """Return where in memory the tensors lie."""
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _alike(one: Any, other: Any) -> bool:
    """Whether the sum of both has the shape and type of the first."""
    return (
        isinstance(other, Tensor)
        and one is not other
        and one.shape == other.shape
        and one.dtype == other.dtype
    )


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
