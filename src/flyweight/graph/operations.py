"""Operations of a traced network, by name: where tensors come from and who takes them.

These are plain values without the network: they can be printed, compared, sent to another process,
and found again in another run of the same network by name.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from flyweight.graph.program import Call, Run, Value, values_in

Source = Literal["operation", "input", "parameter", "buffer", "constant"]


@dataclass(frozen=True)
class GraphTensor:
    """A tensor of the traced network, with what made it.

    Attributes:
        name: Unique in the graph. Of a result, the operation's name, followed by `[i]` where the
            operation returns several tensors; of an input, its place in the call, for example
            `args[0]` or `kwargs['mask']`; of a stored tensor, its name in the module.
        source: `operation`; `input`; `parameter` or `buffer`, which the module stores (a tensor
            kept as a plain attribute counts as a buffer); `constant`, which the code made outside
            of the run.
        shape: Sizes with the traced input.
        dtype: The type of its values.
        operation: Name of the operation that made it; None where no operation did.
    """

    name: str
    source: Source
    shape: tuple[int, ...]
    dtype: torch.dtype
    operation: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the module stores it."""
        return self.source in ("parameter", "buffer")


@dataclass(frozen=True)
class Operation:
    """One ATen operation that the network executes.

    Attributes:
        name: Unique in the graph, and stable: it depends neither on input sizes nor on channel
            counts, only on what the module itself executes. It is the module's path and `op`,
            followed by `#2`, `#3`, ... where the module executes this operation again.
        module: Path of the module whose forward runs it; empty for the model itself.
        op: ATen name without overload and in-place mark, for example `conv2d`.
        inputs: The tensors that it takes, in the order of the operation's schema. Tensors in lists
            (`cat`) stand one after the other.
        outputs: The tensors that it returns.
        parameters: Names of the stored tensors among the inputs, by argument name, for example
            `{"weight": "conv1.weight"}`. A shared tensor has its first name.
        arguments: Every argument by its name in the schema, defaults included; tensors are
            `GraphTensor`s.
    """

    name: str
    module: str
    op: str
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    parameters: Mapping[str, str] = field(hash=False)
    arguments: Mapping[str, Any] = field(hash=False, repr=False)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the outputs."""
        return tuple(tensor.shape for tensor in self.outputs)


def names_of(calls: Iterable[Call]) -> Iterator[tuple[str, Call]]:
    """Yield the steps among `calls`, each with the name of its operation; see `Operation.name`.

    Any run of a network has the same names, whether it computed values or shapes alone.
    """
    count: Counter[tuple[str, str]] = Counter()
    for call in calls:
        if call.is_step:
            count[call.where, call.op] += 1
            name = f"{call.where}.{call.op}" if call.where else call.op
            times = count[call.where, call.op]
            yield (name if times == 1 else f"{name}#{times}"), call


def operations_of(
    model: nn.Module, run: Run
) -> tuple[tuple[Operation, ...], tuple[GraphTensor, ...]]:
    """Return the operations of a run, and the tensors that the model returned.

    Args:
        model: What was run, or what the run was a copy of.
        run: From `recording.record`.
    """
    tensors = _Tensors(model, run)
    steps = {id(call): name for name, call in names_of(run.calls)}
    found: list[Operation] = []
    for call in run.calls:
        if id(call) not in steps:
            tensors.relay(call)
            continue
        name = steps[id(call)]
        arguments = {key: tensors.of_tree(value) for key, value in call.arguments.items()}
        inputs = tuple(tensor for value in arguments.values() for tensor in _tensors_in(value))
        parameters = {
            key: value.name
            for key, value in arguments.items()
            if isinstance(value, GraphTensor) and value.stored
        }
        outputs = tensors.made_by(name, call)
        found.append(Operation(name, call.where, call.op, inputs, outputs, parameters, arguments))
    return tuple(found), tuple(tensors.of(value) for value in values_in(run.outputs))


class _Tensors:
    """Every tensor of a run as a `GraphTensor`, by number."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        parameters = {name for name, _ in model.named_parameters()}
        self._stored, self._inputs = run.names, run.inputs
        self._parameters, self._constants = parameters, 0
        self._known: dict[int, GraphTensor] = {}

    def made_by(self, operation: str, call: Call) -> tuple[GraphTensor, ...]:
        """Return the results of an operation."""
        made = []
        for place, value in enumerate(call.results):
            name = operation if call.single else f"{operation}[{place}]"
            tensor = GraphTensor(name, "operation", value.shape, value.dtype, operation)
            self._known[value.number] = tensor
            made.append(tensor)
        return tuple(made)

    def relay(self, call: Call) -> None:
        """Take the result of a change of layout for its argument."""
        for value in call.results:
            self._known[value.number] = self.of(call.args[0])

    def of_tree(self, tree: Any) -> Any:
        """Return an argument with tensors in place of values."""
        if isinstance(tree, Value):
            return self.of(tree)
        if isinstance(tree, list):
            return tuple(self.of_tree(item) for item in tree)
        return tree

    def of(self, value: Value) -> GraphTensor:
        """Return one tensor."""
        found = self._known.get(value.number)
        if found is None:
            name, source = self._source_of(value.number)
            found = GraphTensor(name, source, value.shape, value.dtype)
            self._known[value.number] = found
        return found

    def _source_of(self, number: int) -> tuple[str, Source]:
        stored = self._stored.get(number)
        if stored is not None:
            return stored, "parameter" if stored in self._parameters else "buffer"
        if number in self._inputs:
            return self._inputs[number], "input"
        self._constants += 1
        return f"constant#{self._constants}", "constant"


def _tensors_in(argument: Any) -> Iterator[GraphTensor]:
    if isinstance(argument, GraphTensor):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _tensors_in(item)
