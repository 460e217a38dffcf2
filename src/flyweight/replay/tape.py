"""A run of a network as a list of operations, of which any part can be run again.

Recording is a run of the module itself, whole operations at a time; what a later part needs of an
earlier one is kept as a value. Operations that write into their argument are noted as their twins
that return a new tensor, so that running a part again never changes what is kept.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from flyweight.graph.dispatch import Dispatch
from flyweight.graph.stored import held_tensors


class TapeError(Exception):
    """A run cannot be taken down, or has gone another way than the one that was."""


@dataclass(frozen=True)
class Ref:
    """A tensor of the run, by number."""

    number: int


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Attributes:
        func: What it runs; never an operation that writes in place.
        args: Its arguments; tensors are `Ref`s.
        kwargs: Those given by name.
        result: What it returned, in the same way.
    """

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the tensors it takes."""
        return numbers_in((self.args, self.kwargs))

    @property
    def makes(self) -> tuple[int, ...]:
        """Numbers of the tensors it returns."""
        return numbers_in(self.result)


@dataclass(frozen=True, eq=False)
class Tape:
    """What a module did with one batch.

    Attributes:
        steps: In order of execution.
        stored: Numbers of the module's tensors by name.
        values: What of the run was kept, by number; the module's own tensors are among it.
        outputs: What the module returned; tensors are `Ref`s.
    """

    steps: tuple[Step, ...]
    stored: Mapping[str, int]
    values: Mapping[int, Tensor]
    outputs: Any

    def after(self, roots: Collection[int]) -> tuple[Step, ...]:
        """Return the steps whose results change with the tensors `roots`, in order."""
        changed, found = set(roots), []
        for step in self.steps:
            if not changed.isdisjoint(step.reads):
                found.append(step)
                changed.update(step.makes)
        return tuple(found)

    def outputs_with(self, changed: Mapping[int, Tensor]) -> Any:
        """Return the outputs with some tensors exchanged."""
        now = {**self.values, **changed}
        return tree_map_only(Ref, lambda ref: now[ref.number], self.outputs)

    def same_as(self, other: "Tape") -> bool:
        """Whether both did the same operations with the same tensors, whatever their values."""
        mine, theirs = self.steps, other.steps
        return len(mine) == len(theirs) and all(
            one.func is two.func and one.reads == two.reads and one.makes == two.makes
            for one, two in zip(mine, theirs, strict=True)
        )


def needed_by(steps: Sequence[Step]) -> set[int]:
    """Return the numbers of the tensors that `steps` take and do not make."""
    made: set[int] = set()
    needed: set[int] = set()
    for step in steps:
        needed.update(number for number in step.reads if number not in made)
        made.update(step.makes)
    return needed


def record(model: nn.Module, run: Callable[[], Any], keep: Collection[int] = ()) -> Tape:
    """Return what `run` does with `model`.

    Args:
        model: In evaluation mode; call inside `dispatch.evaluating`.
        run: Calls it, for example `lambda: model(images)`.
        keep: Numbers of the tensors to keep the values of, besides the module's own, the inputs
            and the outputs. Numbers are the same in every run of the same operations.

    Raises:
        TapeError: The run writes into a tensor that another one is a view of.
    """
    recorder = _Recorder(frozenset(keep))
    stored = recorder.name(model)
    with recorder:
        returned = run()
    refs = recorder.refs(returned)
    found = zip(_leaves(refs), _tensors(returned), strict=True)
    values = {**recorder.values, **{ref.number: tensor for ref, tensor in found}}
    return Tape(tuple(recorder.steps), stored, values, refs)


def rerun(
    steps: Iterable[Step],
    values: Mapping[int, Tensor],
    changed: Mapping[int, Tensor],
    outputs: Collection[int] = (),
) -> dict[int, Tensor]:
    """Run `steps` again and return what they make: `outputs`, and what no later step takes.

    Args:
        steps: From `Tape.after`.
        values: What was kept of the run.
        changed: Tensors that take the place of kept ones.
        outputs: Numbers of tensors that are wanted even where a later step takes them, too.
    """
    steps = tuple(steps)
    now: dict[int, Tensor] = dict(changed)
    last = {number: place for place, step in enumerate(steps) for number in step.reads}
    last |= dict.fromkeys(outputs, len(steps))
    owned: set[int] = set()  # made here, and seen through no other tensor

    def value(ref: Ref) -> Tensor:
        found = now.get(ref.number)
        return values[ref.number] if found is None else found

    for place, step in enumerate(steps):
        args, kwargs = tree_map_only(Ref, value, (step.args, step.kwargs))
        first = step.args[0] if step.args else None
        spent = isinstance(first, Ref) and first.number in owned and last[first.number] == place
        spent = spent and (step.func is not _SUM or _alike(args[0], args[1]))
        func = _ANY_LAYOUT.get(step.func, step.func)
        func = _IN_PLACE.get(func, func) if spent else func
        result = func(*args, **kwargs)
        # Schemas do not tell: a dropout at rest returns the very tensor that it was given.
        alone = func in _WRITES or _storages(result).isdisjoint(_storages((args, kwargs)))
        del args, kwargs
        for number in step.reads:
            if last[number] == place:
                now.pop(number, None)
        if not alone:
            owned.difference_update(step.reads)
        for ref, tensor in zip(_leaves(step.result), _tensors(result), strict=True):
            now[ref.number] = tensor
            if alone:
                owned.add(ref.number)
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
    _SUM: _ATEN.add_.Tensor,  # of two that are alike
}
"""Operations that may write over an argument that nothing else needs: as large, of one type."""
_WRITES = frozenset(_IN_PLACE.values())

_ANY_LAYOUT: Mapping[OpOverload, OpOverload] = {
    _ATEN.view.default: _ATEN.reshape.default,
    _ATEN._unsafe_view.default: _ATEN.reshape.default,
}
"""Operations that refuse some layouts in memory, and those that do the same with any."""


class _Recorder(Dispatch):
    def __init__(self, keep: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keep = keep
        self.steps: list[Step] = []
        self.values: dict[int, Tensor] = {}
        self._numbers = WeakIdKeyDictionary()
        self._count = 0

    def name(self, model: nn.Module) -> dict[str, int]:
        """Number the tensors of `model` and keep them."""
        stored: dict[str, int] = {}
        for name, tensor, _ in held_tensors(model):
            stored[name] = self._numbers.get(tensor) or self._number(tensor)  # type: ignore[no-untyped-call]
            self.values[stored[name]] = tensor
        return stored

    def refs(self, value: Any) -> Any:
        """Return `value` with numbers for tensors."""
        return tree_map_only(Tensor, self._ref, value)

    def _ref(self, tensor: Tensor) -> Ref:
        number = self._numbers.get(tensor)  # type: ignore[no-untyped-call]
        if number is None:
            # Made outside of the run, as inputs and constants are.
            number = self._number(tensor)
            self.values[number] = tensor
        return Ref(number)

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[tensor] = self._count
        return self._count

    def _note(self, tensor: Tensor) -> Ref:
        number = self._number(tensor)
        if number in self.keep:
            self.values[number] = tensor
        return Ref(number)

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = self.refs(args), self.refs(kwargs)
        pure = func
        if func._schema.is_mutable:
            pure = _twin(func)
            self._spare(args[0])
        result = func(*args, **kwargs)
        noted = tree_map_only(Tensor, self._note, result)
        self.steps.append(Step(pure, taken[0], taken[1], noted))
        return result

    def _spare(self, tensor: Tensor) -> None:
        """Keep what `tensor` holds before it is written into, where that is wanted."""
        storage = tensor.untyped_storage()._cdata
        for other in list(self._numbers.keys()):  # type: ignore[no-untyped-call]
            if other is not tensor and other.untyped_storage()._cdata == storage:
                raise TapeError("writes into a tensor that another one is a view of")
        number = self._numbers[tensor]
        if number in self.values:
            self.values[number] = tensor.clone()


def _twin(func: OpOverload) -> OpOverload:
    """Return the operation that returns what `func` writes into its first argument.

    Raises:
        TapeError: There is none.
    """
    space, name = func._schema.name.split("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    if not name.endswith("_") or name.endswith("__") or packet is None:
        raise TapeError(f"{name} writes into its arguments")
    overload = func._overloadname
    if overload not in packet.overloads():
        raise TapeError(f"{name}.{overload} has no twin that does not write")
    twin: OpOverload = getattr(packet, overload)
    return twin


def _storages(tree: Any) -> set[int]:
    """Return where in memory the tensors lie."""
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _alike(one: Any, other: Any) -> bool:
    """Whether the sum of both is as large as the first, and of its type."""
    return (
        isinstance(other, Tensor)
        and one is not other
        and one.shape == other.shape
        and one.dtype == other.dtype
    )


def _leaves(tree: Any) -> list[Ref]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Ref)]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def numbers_in(tree: Any) -> tuple[int, ...]:
    """Return the numbers of all tensors in nested containers, in order."""
    return tuple(ref.number for ref in _leaves(tree))
