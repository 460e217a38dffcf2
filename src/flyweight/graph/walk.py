"""Walks of recordings: channel identities carried from call to call through all runs.

All runs share the identities of the stored tensors, so what one run joins or freezes holds for all
(design note 0022).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.graph.build import Slot, build_graph
from flyweight.graph.cost import AxisSize
from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.live_calls import live_calls
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.predictions import Place, Prediction, numbers_of, slice_window
from flyweight.graph.program import Call, Recording, Run, Shape, Value
from flyweight.graph.rescaling import Factors, Stored
from flyweight.graph.rules import RULES
from flyweight.graph.rules.computed_weights import as_weights
from flyweight.graph.rules.normalised_weights import with_factors
from flyweight.graph.rules.orders import with_positions, without_computed
from flyweight.graph.size_agreement import Labels, Mark, disagreement, first_to_join, take_back
from flyweight.graph.sizes import AxisSizes
from flyweight.graph.step import Ledger, Step
from flyweight.graph.stored import stored_tensors

_INDICES = (torch.int64, torch.int32)


class Walk:
    """Carries flows from call to call of every run of a recording."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.recording = recording
        self.tensors = stored_tensors(model)
        self.learned = frozenset(dict(model.named_parameters()))
        self.saved = self.learned | frozenset(dict(model.named_buffers()))
        self.ledger = Ledger()
        self.slots: list[Slot] = []
        self.flows = {
            name: self._stored(name, tuple(tensor.shape)) for name, tensor in self.tensors.items()
        }
        self.paths: list[_Path] = []

    def run(self) -> None:
        """Apply the rules to every call of every run."""
        first = self.recording.evaluation
        for run in self.recording.runs:
            # Costs are those of the first run. All runs share everything else.
            other = replace(self.ledger, counted=[], uncounted={})
            path = _Path(run, self.ledger if run is first else other, self.flows)
            self.paths.append(path)
            if run is not first and run.repeats(first):
                continue
            # What another path through the code ties, it ties at any size.
            if run is not first and (run.resized or run.same_as(first)) and run.mode == first.mode:
                self._follow_in_agreement(path)
            else:
                path.follow()

    def _follow_in_agreement(self, path: "_Path") -> None:
        """Follow a run at another size, and freeze what it ties in another way than the others."""
        identities = self.ledger.identities
        before = identities.components()
        start = Mark.of(identities)
        path.follow()
        known = self._known(before, path)
        apart = disagreement(before, identities.components(), known)
        if not len(apart):
            return
        at = first_to_join(identities, before, known, path.marks)
        place = f": {path.steps[at][0].place()}" if at is not None else ""
        ids = take_back(identities, before, apart, start)
        identities.freeze(ids, f"lies at other places when the input has another size{place}")

    def _known(self, before: Labels, path: "_Path") -> Labels:
        """Return the components that runs before `path` have tied, as far as they could."""
        read: set[str | None] = set()
        for earlier in self.paths[: self.paths.index(path)]:
            run = earlier.recorded
            read |= {run.names.get(number) for call in run.calls for number in call.reads}
        return np.unique(
            np.concatenate([before[:0], *(before[s.ids] for s in self.slots if s.tensor in read)])
        )

    def settled(self) -> tuple[ModelGraph, tuple[tuple[Prediction, ...], ...]]:
        """Return the graph and, for every run, the prediction of every step, as things stand."""
        example = self.recording.evaluation.example.described()
        self.graph, sizes = build_graph(self.ledger, self.slots, self.tensors, self.saved, example)
        return self.graph, tuple(path.predicted(sizes) for path in self.paths)

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

    def unread(self) -> list[str]:
        """Return the names of the parameters that no run reads."""
        read = {
            name
            for run in self.recording.runs
            for name in map(run.names.get, {n for call in run.calls for n in call.reads})
        }
        returned = {
            run.names.get(value.number) for run in self.recording.runs for value in run.outputs
        }
        unread = set(self.tensors) - read - returned
        return [name for name in self.tensors if name in unread and name in self.learned]

    def _ids(self, place: Place) -> Ids:
        run, index, tensor, axis = place
        step, results = self.paths[run].steps[index]
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
        if self.tensors[name].layout is not torch.strided:
            for found in fields:
                self.ledger.identities.freeze(found.ids, "is an axis of a sparse tensor")
            return Flow(shape, tuple(fields), parameter=True)
        order = _order_in(self.tensors[name])
        first = {found.axes[0]: int(found.ids[0]) for found in fields}
        factors: Factors = {Stored(name, shape, first): 1.0}
        return Flow(shape, tuple(fields), parameter=True, factors=factors, order=order)


class _Path:
    """Carries flows from call to call of one run."""

    def __init__(self, run: Run, ledger: Ledger, stored: Mapping[str, Flow]) -> None:
        self.recorded, self.ledger = run, ledger
        self.flows = {run.stored[name]: flow for name, flow in stored.items()}
        self.steps: list[tuple[Step, tuple[Flow, ...]]] = []
        self.calls: list[Call] = []
        self.marks: list[Mark] = []
        self._live = frozenset(map(id, live_calls(run)))

    def follow(self) -> None:
        """Apply the rules to every call."""
        for call in self.recorded.calls:
            if call.is_step:
                self._call(call)
            else:
                self._relay(call)
        for output in self.recorded.outputs:
            for found in self._lookup(output).fields:
                self.ledger.identities.freeze(found.ids, "is an output of the model")
        for value in self.recorded.left:
            for found in self._lookup(value).fields:
                self.ledger.identities.freeze(found.ids, "is left in an input of the model")

    def predicted(self, sizes: AxisSizes) -> tuple[Prediction, ...]:
        """Return the prediction of every step."""
        return tuple(
            _predict(call, step, flows, sizes)
            for call, (step, flows) in zip(self.calls, self.steps, strict=True)
        )

    def _call(self, call: Call) -> None:
        arguments = {name: self._lookup(value) for name, value in call.arguments.items()}
        shapes = tuple(value.shape for value in call.results)
        step = without_computed(Step(call.op, call.where, arguments, shapes, self.ledger))
        counted = len(self.ledger.counted)
        mixed = len(self.ledger.identities.mixed)
        flows = with_positions(step, _follow(step))
        if id(call) not in self._live:
            del self.ledger.identities.mixed[mixed:]
        if len(self.ledger.counted) == counted:
            self.ledger.uncounted[call.op] = self.ledger.uncounted.get(call.op, 0) + 1
        for value, flow in zip(call.results, flows, strict=False):
            self.flows[value.number] = flow
        self.steps.append((step, flows))
        self.calls.append(call)
        self.marks.append(Mark.of(self.ledger.identities))

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


def _predict(call: Call, step: Step, flows: tuple[Flow, ...], sizes: AxisSizes) -> Prediction:
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
    numbers = numbers_of(call)
    results = tuple(map(along, flows))
    return Prediction(step.op, step.where, results, sources, window, numbers, call.known)


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
    return with_factors(step, as_weights(step, flows))


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
    results = as_weights(step, tuple(Flow(shape) for shape in step.shapes))
    return tuple(replace(flow, zeros=False) for flow in results)
