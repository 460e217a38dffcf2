"""Traces of modules: operations, coupled channel groups and costs.

A recorded run gives every operation with its shapes; the rules carry channel identities through
them (design note 0002). The module is left as it was.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.graph.build import Slot, build_graph
from flyweight.graph.cost import AxisSize
from flyweight.graph.entry import plain_module
from flyweight.graph.example_inputs import Example
from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.operations import operations_of
from flyweight.graph.predictions import Place, Prediction, slice_window
from flyweight.graph.program import Call, Recording, Shape, Value
from flyweight.graph.recording import record
from flyweight.graph.rules import RULES, WHOLE
from flyweight.graph.rules.computed_weights import as_weights
from flyweight.graph.rules.orders import with_positions, without_computed
from flyweight.graph.sizes import AxisSizes
from flyweight.graph.step import Ledger, Step
from flyweight.graph.stored import stored_tensors
from flyweight.graph.trial_cuts import followable


def trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> ModelGraph:
    """Return the graph of `model` as it runs on an example in evaluation mode.

    Args:
        model: Any module that runs; it is not changed. It may live on the meta device, and so may
            the inputs.
        args: Example inputs, for example `(torch.rand(1, 3, 320, 320),)`. Sizes are taken as they
            are; the values matter only to a model that asks for them.
        kwargs: Example inputs by keyword, for example `{"mask": mask}`.

    Raises:
        GraphError: The module fails on these inputs; the message carries its reason.

    Example:
        >>> import torch
        >>> graph = trace(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), (torch.rand(1, 3, 9, 9),)
        ... )
        >>> [(name, group.size) for name, group in graph.groups.items() if group.prunable]
        [('0.weight', 8)]
        >>> [operation.name for operation in graph.operations]
        ['0.conv2d', '1.conv2d']
    """
    model = plain_module(model)
    example = Example(args, dict(kwargs or {}))
    recording = record(model, args, WHOLE, kwargs)
    walk = _Walk(model, recording)
    walk.run()
    graph = followable(model, example, walk, WHOLE, values=recording.evaluation.on_values)
    operations, outputs = operations_of(model, recording.evaluation)
    return replace(graph, operations=operations, outputs=outputs)


_INDICES = (torch.int64, torch.int32)


class _Walk:
    """Carries flows from call to call of one recording."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.recorded = recording.evaluation
        self.tensors = stored_tensors(model)
        self.saved = frozenset({**dict(model.named_parameters()), **dict(model.named_buffers())})
        self.ledger = Ledger()
        self.slots: list[Slot] = []
        self.steps: list[tuple[Step, tuple[Flow, ...]]] = []
        stored = self.recorded.stored
        self.flows = {
            stored[name]: self._stored(name, tuple(tensor.shape))
            for name, tensor in self.tensors.items()
        }

    def run(self) -> None:
        """Apply the rules to every call."""
        for call in self.recorded.calls:
            if call.is_step:
                self._call(call)
            else:
                self._relay(call)
        for output in self.recorded.outputs:
            for found in self._lookup(output).fields:
                self.ledger.identities.freeze(found.ids, "is an output of the model")

    def settled(self) -> tuple[ModelGraph, tuple[Prediction, ...]]:
        """Return the graph and the prediction of every call, as things stand."""
        example = self.recorded.example
        self.graph, sizes = build_graph(self.ledger, self.slots, self.tensors, self.saved, example)
        return self.graph, tuple(_predict(step, flows, sizes) for step, flows in self.steps)

    def tie(self, one: Place, other: Place) -> None:
        """Declare that equal positions of two axes leave together."""
        self.ledger.identities.join(self._ids(one), self._ids(other))

    def untie(self) -> None:
        """Take the last `tie` back."""
        self.ledger.identities.joined.pop()

    def freeze(self, group: str, reason: str) -> None:
        """Declare that a group of the last `settled` graph cannot be cut."""
        found = self.graph.groups[group]
        member = found.members[0]
        ids = next(s.ids for s in self.slots if (s.tensor, s.axis) == (member.tensor, member.axis))
        self.ledger.identities.freeze(ids[member.positions(found.size)], reason)

    def _ids(self, place: Place) -> Ids:
        index, tensor, axis = place
        step, results = self.steps[index]
        flow = [*results, *step.flows()][tensor]
        found = flow.field_on(axis)
        if found is None:
            raise ValueError("an axis of fixed size has no identities to tie")
        rows: Ids = np.moveaxis(found.ids, found.axes.index(axis), 0)
        return rows.reshape(len(rows), -1)[:, 0]

    def _stored(self, name: str, shape: Shape) -> Flow:
        fields = []
        for axis, size in enumerate(shape):
            if size > 1 or (axis == 0 and size):
                ids = self.ledger.identities.fresh(size)
                self.slots.append(Slot(name, axis, ids))
                if size > 1:
                    fields.append(Field((axis,), ids))
        order = _order_in(self.tensors[name])
        return Flow(shape, tuple(fields), parameter=True, order=order)

    def _call(self, call: Call) -> None:
        arguments = {name: self._lookup(value) for name, value in call.arguments.items()}
        shapes = tuple(value.shape for value in call.results)
        step = without_computed(Step(call.op, call.where, arguments, shapes, self.ledger))
        counted = len(self.ledger.counted)
        flows = with_positions(step, _follow(step))
        if len(self.ledger.counted) == counted:
            self.ledger.uncounted[call.op] = self.ledger.uncounted.get(call.op, 0) + 1
        for value, flow in zip(call.results, flows, strict=False):
            self.flows[value.number] = flow
        self.steps.append((step, flows))

    def _relay(self, call: Call) -> None:
        """Hand the identities of what only changed its layout in memory on."""
        for value in call.results:
            self.flows[value.number] = self._lookup(call.args[0])

    def _lookup(self, value: Any) -> Any:
        if isinstance(value, Value):
            # What is neither stored nor made by an operation is an input or a constant.
            return self.flows.get(value.number, Flow(value.shape))
        if isinstance(value, list):
            return [self._lookup(item) for item in value]
        return value


def _order_in(tensor: Tensor) -> Ids | None:
    """Return the values of a stored permutation of `0..n-1`; None of any other tensor."""
    if tensor.ndim != 1 or len(tensor) < 2 or tensor.dtype not in _INDICES or tensor.is_meta:
        return None
    values: Ids = tensor.detach().cpu().numpy().astype(np.int64)
    return values if (np.sort(values) == np.arange(len(values))).all() else None


def _predict(step: Step, flows: tuple[Flow, ...], sizes: AxisSizes) -> Prediction:
    def along(flow: Flow) -> tuple[AxisSize, ...]:
        return tuple(sizes.along(flow, axis) for axis in range(len(flow.shape)))

    window: tuple[AxisSize, ...] = ()
    if step.op == "slice":
        source = step.flow("self")
        found = source.field_on(int(step.arguments.get("dim", 0)) % len(source.shape))
        if found is not None and len(found.axes) == 1:
            bounds = (step.arguments.get("start"), step.arguments.get("end"))
            ends = slice_window(len(found.ids), *bounds)
            window = tuple(sizes.of(found.ids[:end], end) for end in ends)
    sources = tuple(along(flow) for flow in step.flows())
    return Prediction(step.op, step.where, tuple(map(along, flows)), sources, window)


def _follow(step: Step) -> tuple[Flow, ...]:
    """Carry identities through one operation; what no rule follows is frozen."""
    rule = RULES.get(step.op)
    if rule is None:
        return _freeze_inputs(step, "passes an operation that has no rule")
    try:
        result = rule(step)
    except (IndexError, KeyError, TypeError, ValueError):
        result = None
    if result is None or not _fits(result, step.shapes):
        return _freeze_inputs(step, "passes an operation in a form that its rule does not cover")
    flows = result if isinstance(result, tuple) else (result,)
    return as_weights(step, flows)


def _fits(result: Flow | tuple[Flow, ...], shapes: tuple[Shape, ...]) -> bool:
    """Whether identities lie on axes of just their size."""
    flows = result if isinstance(result, tuple) else (result,)
    return len(flows) == len(shapes) and all(
        flow.shape == shape
        and all(
            found.ids.shape == tuple(shape[axis] for axis in found.axes) for found in flow.fields
        )
        for flow, shape in zip(flows, shapes, strict=True)
    )


def _freeze_inputs(step: Step, why: str) -> tuple[Flow, ...]:
    for flow in step.flows():
        for found in flow.fields:
            step.freeze(found.ids, why)
    return tuple(Flow(shape) for shape in step.shapes)
