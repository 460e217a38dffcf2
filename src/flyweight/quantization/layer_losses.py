"""Loss by the quantization of each layer alone, where what comes before the layer runs once.

The float network runs once per batch. For a layer, it is computed on integers from what the run
kept of its input, and only the operations that depend on its result are executed again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from flyweight.errors import PlanError
from flyweight.graph.containers import tensors_in
from flyweight.graph.dispatch import evaluating
from flyweight.graph.example_inputs import Example
from flyweight.graph.operations import names_of
from flyweight.graph.program import Call, Run, Value, numbers_in
from flyweight.graph.recorder import module_paths
from flyweight.graph.recording import private_copy
from flyweight.quantization.fixed_norms import as_batch_norms_
from flyweight.quantization.float_twin import float_twin, scaled_layer
from flyweight.quantization.network import QuantizedForward, forward_of
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.quantize import Images, batches_of
from flyweight.replay.rerun import ReplayError, needed_by, record, rerun

Loss = Callable[[int, Any, Any], float]
"""Takes the number of the batch, the outputs of the float network, and those with one quantized
layer; returns what the layer costs. A loss with labels holds these by the number of the batch."""


def relative_squared_error(batch: int, dense: Any, outputs: Any) -> float:
    """Return the squared error of all output tensors, divided by their squared size."""
    pairs = list(zip(tensors_in(dense), tensors_in(outputs), strict=True))
    size = sum(float(one.double().square().sum()) for one, _ in pairs)
    return sum(float((one - two).double().square().sum()) for one, two in pairs) / (size or 1.0)


def divergence(batch: int, dense: Any, outputs: Any) -> float:
    """Return the mean Kullback-Leibler divergence of class probabilities, from logits.

    Every output tensor has its classes on axis 1.
    """
    total = count = 0.0
    for one, two in zip(tensors_in(dense), tensors_in(outputs), strict=True):
        logs, others = (part.double().log_softmax(1) for part in (one, two))
        total += float((logs.exp() * (logs - others)).sum())
        count += one[:, :1].numel()
    return total / max(count, 1.0)


def layer_losses(
    model: nn.Module,
    quantized: nn.Module,
    images: Images,
    loss: Loss = relative_squared_error,
) -> dict[str, float]:
    """Return what it costs to quantize each layer alone, by operation, averaged over batches.

    A layer is quantized with its input, its weight and its result; everything else is float. Where
    `equalize` or `exact` scaled layers, the float network is scaled alike.

    Args:
        model: The float network; it is not changed.
        quantized: What `fw.quantize` made of it, with its weights and grids; it is not changed.
        images: As `fw.quantize` takes them.
        loss: Compares outputs.

    Raises:
        PlanError: There are no images, the second network is float, or the first one cannot be
            executed in parts, or `exact` made a ReLU of a ReLU6.
    """
    forward = forward_of(quantized)
    if forward is None:
        raise PlanError(
            "Layers must be compared with those of a quantized network. Received a float "
            f"{type(quantized).__name__}. Give what fw.quantize returned."
        )
    dense, plan = _scaled_alike(private_copy(model, values=True), forward), forward.plan
    as_batch_norms_(dense)
    totals = {layer.operation: 0.0 for layer in plan.layers.values()}
    count, parts = 0, None
    with evaluating(dense, quantized):
        forward.prepare()
        for count, batch in enumerate(batches_of(images), 1):
            parts = parts or _parts_of(_recorded(dense, batch, frozenset()), plan)
            run = _recorded(dense, batch, frozenset().union(*(one.needed for one in parts)))
            whole = run.outputs_with({})
            for one in parts:
                outputs = _with_integers(run, one, forward)
                totals[one.layer.operation] += loss(count - 1, whole, outputs)
    if not count:
        raise PlanError("Layers must be compared on images. Received none. Give one at least.")
    return {name: total / count for name, total in totals.items()}


def _scaled_alike(dense: nn.Module, forward: QuantizedForward) -> nn.Module:
    if scaled_layer(dense, forward) is None:
        return dense
    if forward.plan.relus:
        where = forward.plan.relus[0].partition("|")[0]
        raise PlanError(
            "Layers must be comparable with float ones. Received a network that was quantized with "
            f"exact, in which the ReLU6 '{where}' runs as a scaled ReLU. Compare the layers of one "
            "that was quantized without exact."
        )
    return float_twin(dense, forward)


@dataclass(frozen=True, eq=False)
class _Part:
    """The part of a run that changes with one layer.

    Attributes:
        layer: The layer.
        call: Its operation.
        fused: What runtimes compute with it: an activation, at most.
        end: Number of the tensor that all of these make.
        after: The operations to execute again.
        needed: Numbers of the tensors that must be kept of a run.
    """

    layer: IntegerLayer
    call: Call
    fused: tuple[Call, ...]
    end: int
    after: tuple[Call, ...]
    needed: frozenset[int]


def _recorded(dense: nn.Module, batch: Example, keep: frozenset[int]) -> Run:
    try:
        with module_paths(dense) as path:
            return record(dense, lambda: dense(*batch.args, **batch.kwargs), keep, path)
    except ReplayError as error:
        raise PlanError(
            "A network must be executable in parts to compare its layers. Received a "
            f"{type(dense).__name__} that {error}. Compare whole quantized networks instead."
        ) from error


def _parts_of(run: Run, plan: QuantizationPlan) -> tuple[_Part, ...]:
    named = dict(names_of(run.calls))
    names = {id(call): name for name, call in named.items()}
    readers: dict[int, list[Call]] = {}
    for call in run.calls:
        for number in call.reads:
            readers.setdefault(number, []).append(call)
    returned = numbers_in(run.outputs)
    parts = []
    for layer in plan.layers.values():
        chain = list(_chain(layer, named[layer.operation], names, readers))
        fused = tuple(call for call in chain[1:] if call.op != "batch_norm")
        end = chain[-1].result.number
        after = run.after({end})
        needed = needed_by(after) | {chain[0].arguments["input"].number}
        needed |= set(returned)
        parts.append(_Part(layer, chain[0], fused, end, after, frozenset(needed)))
    return tuple(parts)


def _chain(
    layer: IntegerLayer, call: Call, names: Mapping[int, str], readers: Mapping[int, list[Call]]
) -> Iterator[Call]:
    """Yield the operation of a layer, and the sole readers until its result is quantized."""
    yield call
    while names.get(id(call)) != layer.result:
        taking = readers.get(call.result.number, [])
        if len(taking) != 1:
            raise PlanError(
                f"A plan must meet the model it was made for. Received '{layer.operation}', whose "
                f"result '{layer.result}' does not follow from it. Quantize again."
            )
        call = taking[0]
        yield call


def _with_integers(run: Run, part: _Part, forward: QuantizedForward) -> Any:
    """Return the outputs with one layer on integers."""
    weight, bias = forward.parameters_of(part.layer)
    given = run.values[part.call.arguments["input"].number]
    settings = {
        **part.call.arguments,
        "input": forward.result(part.layer.source, given),
        "weight": part.layer.channels_first(weight),
        "bias": bias,
    }
    made = part.call.func(**settings)
    for call in part.fused:
        made = _again(call, made)
    changed = {part.end: forward.result(part.layer.result, made)}
    found = rerun(part.after, run.values, changed, numbers_in(run.outputs))
    return run.outputs_with({**changed, **found})


def _again(call: Call, given: Tensor) -> Tensor:
    """Return what an operation of one tensor makes of another one."""
    args, kwargs = tree_map_only(Value, lambda _: given, (call.args, dict(call.kwargs)))
    made: Tensor = call.func(*args, **kwargs)
    return made


def most_sensitive(losses: Mapping[str, float], count: int) -> tuple[str, ...]:
    """Return the operations with the largest losses, the largest first."""
    if count < 0:
        raise PlanError(f"A number of layers must be 0 or more. Received: {count}.")
    ordered = sorted(losses, key=lambda name: -losses[name])
    return tuple(ordered[:count])


def sensitive_layers(losses: Mapping[str, float], share: float = 0.8) -> tuple[str, ...]:
    """Return the fewest operations that together have a share of the losses, the largest first.

    Args:
        losses: From `layer_losses`, none below 0.
        share: Above 0 and at most 1.

    Raises:
        PlanError: It is not.
    """
    if not 0 < share <= 1:
        raise PlanError(f"A share of losses must be above 0 and at most 1. Received: {share}.")
    ordered, found = sorted(losses, key=lambda name: -losses[name]), list[str]()
    wanted, total = share * sum(losses.values()), 0.0
    for name in ordered:
        if total >= wanted:
            break
        found.append(name)
        total += losses[name]
    return tuple(found)
