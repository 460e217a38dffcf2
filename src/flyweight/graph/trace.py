"""Trace a module into operations, coupled channel groups and costs.

`torch.export` on fake tensors gives every operation with its shapes; the rules carry channel
identities through them (design note 0002). The module is left as it was.
"""

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from flyweight.errors import GraphError
from flyweight.graph.build import Slot, build_graph
from flyweight.graph.identity import Field, Flow
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.rules import RULES
from flyweight.graph.step import Ledger, Step


def trace(model: nn.Module, args: tuple[Any, ...]) -> ModelGraph:
    """Return the graph of `model` as it runs on `args` in evaluation mode.

    Args:
        model: Any module that `torch.export` can trace; it is not changed. It may live on the
            meta device, and so may `args`.
        args: Example inputs, for example `(torch.rand(1, 3, 320, 320),)`. Sizes are taken as they
            are; the values do not matter.

    Raises:
        GraphError: The module cannot be traced; the message carries torch's reason.

    Example:
        >>> graph = trace(
        ...     nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), (torch.rand(1, 3, 9, 9),)
        ... )
        >>> [(name, group.size) for name, group in graph.groups.items() if group.prunable]
        [('0.weight', 8)]
    """
    program = _export(model, args)
    walk = _Walk(program, _first_names(model))
    walk.run()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    inputs = tuple(
        (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for value in args
        if isinstance(value, Tensor)
    )
    return build_graph(walk.ledger, walk.slots, tensors, inputs)


def _export(model: nn.Module, args: tuple[Any, ...]) -> torch.export.ExportedProgram:
    with _evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(model, args, strict=False)
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
            raise GraphError(
                "The model must be traceable by torch.export. Received from "
                f"{type(model).__name__}: "
                f"{reason}. Trace the part of the model that runs on tensors alone, without "
                "decoding."
            ) from error


def _first_names(model: nn.Module) -> dict[str, str]:
    """Return, for every name of a parameter or buffer, the first name of that same tensor."""
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into the state it is used in; gradients alone double the time of an export."""
    training = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Without gradients, attention would become one fused operation that hides its channels.
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, was in training.items():
            module.training = was


class _Walk:
    """Carries flows from node to node of one exported program."""

    def __init__(self, program: torch.export.ExportedProgram, first_names: dict[str, str]) -> None:
        self.program = program
        self.first_names = first_names
        self.shared: dict[str, Flow] = {}
        self.ledger = Ledger()
        self.slots: list[Slot] = []
        self.flows: dict[fx.Node, Any] = {}
        signature = program.graph_signature
        self.stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}

    def run(self) -> None:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.flows[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.flows[node] = self._call(node)
            elif node.op == "output":
                self._freeze_outputs(node)

    def _placeholder(self, node: fx.Node) -> Flow | None:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return None
        shape = tuple(int(size) for size in value.shape)
        stored = self.stored.get(node.name)
        if stored is None:
            return Flow(shape)
        name = self.first_names.get(str(stored), str(stored))
        if name not in self.shared:
            self.shared[name] = self._stored(name, shape)
        return self.shared[name]

    def _stored(self, name: str, shape: tuple[int, ...]) -> Flow:
        fields = []
        for axis, size in enumerate(shape):
            if size > 1 or axis == 0:
                ids = self.ledger.identities.fresh(size)
                self.slots.append(Slot(name, axis, ids))
                if size > 1:
                    fields.append(Field((axis,), ids))
        return Flow(shape, tuple(fields), parameter=True)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source, index = cast("tuple[fx.Node, int]", node.args)
            flows = self.flows.get(source)
            return flows[index] if isinstance(flows, tuple) else flows
        step = self._step(node)
        if not step.shapes:
            return None
        result = _follow(step)
        _tally(step)
        single = not isinstance(node.meta.get("val"), (tuple, list))
        return result[0] if single and isinstance(result, tuple) else result

    def _step(self, node: fx.Node) -> Step:
        schema = getattr(node.target, "_schema", None)
        arguments: dict[str, Any] = {}
        if schema is None:
            arguments = {str(place): self._lookup(value) for place, value in enumerate(node.args)}
        else:
            for place, argument in enumerate(schema.arguments):
                if place < len(node.args):
                    arguments[argument.name] = self._lookup(node.args[place])
                elif argument.name in node.kwargs:
                    arguments[argument.name] = self._lookup(node.kwargs[argument.name])
                elif argument.has_default_value():
                    arguments[argument.name] = argument.default_value
        return Step(_op_name(node), _module_path(node), arguments, _shapes(node), self.ledger)

    def _lookup(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.flows.get(value)
        if isinstance(value, (list, tuple)):
            return [self._lookup(item) for item in value]
        return value

    def _freeze_outputs(self, node: fx.Node) -> None:
        for argument in node.all_input_nodes:
            flows = self.flows.get(argument)
            for flow in flows if isinstance(flows, tuple) else (flows,):
                for found in flow.fields if isinstance(flow, Flow) else ():
                    self.ledger.identities.freeze(found.ids, "is an output of the model")


def _follow(step: Step) -> Flow | tuple[Flow, ...]:
    """Carry identities through one operation; what no rule follows is frozen."""
    rule = RULES.get(step.op)
    if rule is None:
        return _freeze_inputs(step, "passes an operation that has no rule")
    try:
        result = rule(step)
    except (IndexError, KeyError, TypeError, ValueError):
        return _freeze_inputs(step, "passes an operation in a form that its rule does not cover")
    sources = step.flows()
    if not sources or not all(flow.parameter for flow in sources):
        return result
    if isinstance(result, tuple):
        return tuple(replace(flow, parameter=True) for flow in result)
    return replace(result, parameter=True)


def _freeze_inputs(step: Step, why: str) -> tuple[Flow, ...]:
    for flow in step.flows():
        for found in flow.fields:
            step.freeze(found.ids, why)
    return tuple(Flow(shape) for shape in step.shapes)


def _tally(step: Step) -> None:
    counted = step.ledger.counted
    if not (counted and counted[-1].where == step.where and counted[-1].op == step.op):
        step.ledger.uncounted[step.op] = step.ledger.uncounted.get(step.op, 0) + 1


def _op_name(node: fx.Node) -> str:
    target = node.target
    packet = getattr(target, "_schema", None)
    name = (
        packet.name.split("::")[-1]
        if packet is not None
        else getattr(target, "__name__", str(target))
    )
    # An in-place operation moves identities as its twin does.
    return name.removesuffix("_") if not name.endswith("__") else name


def _module_path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return str(path)


def _shapes(node: fx.Node) -> tuple[tuple[int, ...], ...]:
    value = node.meta.get("val")
    items = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(
        tuple(int(size) for size in item.shape) for item in items if isinstance(item, Tensor)
    )
