"""Recorded programs: the operations that a module executed, with a number for every tensor.

A number identifies a tensor within one run. Across runs (another batch, another mode, shapes alone
or values) an operation is identified by its name, which `operations.names_of` gives. Whatever
records or executes a program again uses these classes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map_only

from flyweight.graph.dispatch import bound
from flyweight.graph.example_inputs import Example

_REARRANGING_NAMES = """
    view reshape unflatten flatten expand expand_as repeat split split_with_sizes chunk tensor_split
    unsafe_split unsafe_split_with_sizes unsafe_chunk slice unfold arange zeros ones full empty
    new_zeros new_ones new_full new_empty broadcast_to view_as reshape_as _unsafe_view tile roll
    squeeze unsqueeze as_strided repeat_interleave index index_put pad linspace
"""
REARRANGING = frozenset(_REARRANGING_NAMES.split())
"""Operations whose effect on channels depends on sizes, or that take sizes from the code."""

Shape = tuple[int, ...]
Mode = Literal["evaluation", "training"]
OUTSIDE = "<outside>"
"""In place of a module's path: code around the model, which prepares its inputs for example."""


@dataclass(frozen=True)
class Value:
    """A tensor of a run.

    Attributes:
        number: Equal numbers are the same tensor. An operation that writes in place returns a new
            number: what it read and what it made are different values.
        shape: Its sizes.
        dtype: Its type.
    """

    number: int
    shape: Shape
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Call:
    """One executed operation.

    Attributes:
        func: The ATen operation that was executed.
        op: Its name without overload and in-place mark, for example `conv2d`.
        where: Path of the module that ran it; empty for the model itself, `OUTSIDE` for code around
            the model that was recorded with it.
        args: Arguments by position; tensors are `Value`s.
        kwargs: Arguments by name; tensors are `Value`s.
        result: What it returned; tensors are `Value`s.
        known: In a run on shapes alone, those of its arguments that have values: tensors that the
            code computed from sizes and numbers.
    """

    func: OpOverload
    op: str
    where: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any
    known: tuple[Tensor, ...] = ()

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """All arguments by their names in the schema, defaults included."""
        return bound(self.func, self.args, self.kwargs)

    @cached_property
    def results(self) -> tuple[Value, ...]:
        """The tensors that it returned."""
        return tuple(values_in(self.result))

    @property
    def single(self) -> bool:
        """Whether it returned one tensor, not a sequence."""
        return isinstance(self.result, Value)

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the tensors that it takes."""
        return numbers_in((self.args, self.kwargs))

    @cached_property
    def makes(self) -> tuple[int, ...]:
        """Numbers of the tensors that it returns."""
        return tuple(value.number for value in self.results)

    @cached_property
    def constants(self) -> tuple[Any, ...]:
        """The arguments that are not tensors."""
        leaves = tree_leaves((self.args, dict(self.kwargs)))
        return tuple(leaf for leaf in leaves if not isinstance(leaf, Value))

    @property
    def is_step(self) -> bool:
        """Whether it is a step of the model's computation.

        Not so what returns no tensor, what code around the model executes, and what only changes
        the layout in memory of its argument: PyTorch skips that where the layout is right already,
        which depends on sizes.
        """
        return bool(self.results) and self.op != "contiguous" and self.where != OUTSIDE


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a module, with all that is known of it.

    Attributes:
        calls: The operations that it executed, in order.
        outputs: What it returned; tensors are `Value`s.
        stored: Numbers of the module's parameters, buffers and other tensors, by name. A shared
            tensor has several names and one number.
        mode: The mode that the module was in.
        example: What the module was called with.
        inputs: Places of its inputs by number, for example `args[0]` or `kwargs['mask']`.
        on_values: Whether it computed values; otherwise it computed shapes alone.
        values: The tensors of the run that were kept, by number.
        resized: Whether it is the run of the example at other sizes.
        left: What it left in its inputs: tensors added to containers, and inputs written into.
    """

    calls: tuple[Call, ...]
    outputs: Any
    stored: Mapping[str, int]
    mode: Mode = "evaluation"
    example: Example = field(default_factory=lambda: Example(()))
    inputs: Mapping[int, str] = field(default_factory=dict)
    on_values: bool = True
    values: Mapping[int, Tensor] = field(default_factory=dict)
    resized: bool = False
    left: tuple[Value, ...] = ()

    @cached_property
    def names(self) -> dict[int, str]:
        """The first name of every stored tensor, by number."""
        found: dict[int, str] = {}
        for name, number in self.stored.items():
            found.setdefault(number, name)
        return found

    def after(self, roots: Collection[int]) -> tuple[Call, ...]:
        """Return the calls whose results depend on the tensors `roots`, in order."""
        changed, found = set(roots), []
        for call in self.calls:
            if not changed.isdisjoint(call.reads):
                found.append(call)
                changed.update(call.makes)
        return tuple(found)

    def outputs_with(self, changed: Mapping[int, Tensor]) -> Any:
        """Return the outputs with some tensors replaced; the others must have been kept."""
        now = {**self.values, **changed}
        return tree_map_only(Value, lambda value: now[value.number], self.outputs)

    @property
    def steps(self) -> list[Call]:
        """The calls that are steps of the model's computation."""
        return [call for call in self.calls if call.is_step]

    def repeats(self, other: "Run") -> bool:
        """Whether this run adds nothing to what `other`, in another mode or size, shows.

        It executes the same operations on the same tensors, returns the same ones, and no operation
        that rearranges axes sees other sizes, except that of the first axis. In training, batch
        normalisation takes averages over the first axis, so channels must not lie there.
        """
        if self._wiring != other._wiring:
            return False
        pairs = zip(self._counted_calls, other._counted_calls, strict=True)
        rearranging = [(one, two) for one, two in pairs if one.op in REARRANGING]
        averages = self.mode != other.mode and any(call.op == "batch_norm" for call in self.calls)
        return all(_sizes_seen(one) == _sizes_seen(two) for one, two in rearranging) and not (
            averages and any(_moves_first_axis(one) for one, _ in rearranging)
        )

    @cached_property
    def _counted_calls(self) -> list[Call]:
        """The calls without those that count batches, which training alone executes."""
        counters = {n for name, n in self.stored.items() if name.endswith("num_batches_tracked")}
        return [call for call in self.calls if not (call.reads and counters.issuperset(call.reads))]

    @cached_property
    def _wiring(self) -> list[Any]:
        """The operations, what they take and make, and the outputs; tensors by first appearance."""
        places: dict[int, int] = {}

        def known(numbers: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(places.setdefault(number, len(places)) for number in numbers)

        known(tuple(self.stored.values()))
        wired: list[Any] = [
            (call.func, known(call.reads), known(call.makes)) for call in self._counted_calls
        ]
        return [*wired, known(numbers_in(self.outputs))]

    def same_as(self, other: "Run", *, constants: bool = False) -> bool:
        """Whether both runs did the same operations with the same tensors.

        Args:
            other: Another run of the same module.
            constants: Whether all other arguments must be equal too, sizes among them.
        """
        return len(self.calls) == len(other.calls) and all(
            one.func is two.func
            and one.reads == two.reads
            and one.makes == two.makes
            and (not constants or one.constants == two.constants)
            for one, two in zip(self.calls, other.calls, strict=True)
        )


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """What is needed to repeat a run.

    Attributes:
        mode: Of the module.
        example: Its inputs.
        macs: Multiply-adds, about; 0 where they are unknown.
    """

    mode: Mode
    example: Example
    macs: int = 0


@dataclass(frozen=True, eq=False)
class Recording:
    """What a model computes, as far as its recorded runs show.

    Attributes:
        runs: The first is in evaluation mode at the size of the example.
        notes: What could not be recorded, for the user.
    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    @property
    def evaluation(self) -> Run:
        """The run in evaluation mode at the size of the example."""
        return self.runs[0]


def _moves_first_axis(call: Call) -> bool:
    first = next(values_in((call.args, call.kwargs)), None)
    return first is None or any(value.shape[:1] != first.shape[:1] for value in call.results)


def _sizes_seen(call: Call) -> list[tuple[int, ...]]:
    return [value.shape[1:] for value in (*values_in((call.args, call.kwargs)), *call.results)]


def values_in(tree: Any) -> Iterator[Value]:
    """Yield the values in nested containers, in order."""
    if isinstance(tree, Value):
        yield tree
    elif type(tree) in (list, tuple, dict):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from values_in(item)
    elif not isinstance(tree, _LEAVES):
        yield from (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Value))


_LEAVES = (int, float, str, torch.dtype, torch.device, type(None))
"""Frequent arguments that hold no value, excluded from the slower general search."""


def numbers_in(tree: Any) -> tuple[int, ...]:
    """Return the numbers of the values in nested containers, in order."""
    return tuple(value.number for value in values_in(tree))
