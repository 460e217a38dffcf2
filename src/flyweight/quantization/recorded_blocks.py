"""Blocks of a network, by its recorded operations: what reconstruction trains together.

A block ends at a quantized tensor that alone carries what was computed so far. Tensors that are
read again soon, as by the sum of a residual block, may not cross its end; those that are read much
later, as the routes of a detector or the skip connections of a U-net, may.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flyweight.graph.operations import names_of
from flyweight.graph.program import Call, Run, numbers_in
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.sites import RecordedSites

_MOST_LAYERS = 3
"""Layers of a block that is made of parts without branches: an inverted residual has as many."""
_NEAR = 4
"""Layers within which a tensor that is read again belongs to the same block."""


@dataclass(frozen=True, eq=False)
class Placed:
    """What a plan does with the operations of a run, by their names; see `graph.Operation.name`.

    Attributes:
        layers: Operation to the integer layer that it is.
        norms: Folded normalisations.
        relus: ReLU6 that run as ReLU.
        quantizers: Operation to the quantizer of its result.
    """

    layers: Mapping[str, IntegerLayer]
    norms: frozenset[str]
    relus: frozenset[str]
    quantizers: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive operations of a run.

    Attributes:
        calls: The operations.
        layers: The integer layers among them.
        ends: Numbers of the tensors made here that later operations read or the network returns.
        after: Numbers of all tensors that are needed when the block is done.
    """

    calls: tuple[Call, ...]
    layers: tuple[IntegerLayer, ...]
    ends: tuple[int, ...]
    after: frozenset[int]


def placed(plan: QuantizationPlan, recorded: RecordedSites) -> Placed:
    """Return what `plan` does with operations, where its own names are those of sites."""
    last = {site.name: site.operation for site in recorded.sites if site.operations}
    return Placed(
        {layer.operation: layer for layer in plan.layers.values()},
        frozenset(last[name] for name in plan.norms if name in last),
        frozenset(last[name] for name in plan.relus if name in last),
        {last[name]: quantizer for name, quantizer in plan.outputs.items() if name in last},
    )


def blocks_of(run: Run, found: Placed) -> tuple[Block, ...]:
    """Return the blocks of a run, in order; together they are all its operations.

    Args:
        run: From `replay.rerun.record`.
        found: From `placed`, of the same network.
    """
    names = {id(call): name for name, call in names_of(run.calls)}
    cuts = [*_cuts(run, found, names), len(run.calls)]
    blocks, start, count = [], 0, 0
    for place, end in enumerate(cuts):
        earlier = cuts[place - 1] if place else 0
        coming = sum(names.get(id(call)) in found.layers for call in run.calls[earlier:end])
        if count and count + coming > _MOST_LAYERS:
            blocks.append(_block(run, (start, earlier), found, names))
            start, count = earlier, 0
        count += coming
    blocks.append(_block(run, (start, len(run.calls)), found, names))
    return tuple(blocks)


def _cuts(run: Run, found: Placed, names: Mapping[int, str]) -> Iterator[int]:
    """Yield the places after which a part without open branches ends."""
    last, depth = _last_reads(run.calls), _depths(run.calls, found, names)
    returned, made = set(numbers_in(run.outputs)), set[int]()
    for place, call in enumerate(run.calls):
        made.update(call.makes)
        made = {number for number in made if last.get(number, -1) > place}
        if names.get(id(call)) not in found.quantizers or not made.intersection(call.makes):
            continue
        near = {
            number
            for number in made.difference(call.makes, returned)
            if depth[last[number]] - depth[place] <= _NEAR
        }
        if len(call.makes) == 1 and not near:
            yield place + 1


def _last_reads(calls: Iterable[Call]) -> dict[int, int]:
    """Return the place of the last operation that reads each tensor."""
    return {number: place for place, call in enumerate(calls) for number in call.reads}


def _depths(calls: Iterable[Call], found: Placed, names: Mapping[int, str]) -> list[int]:
    """Return how many integer layers there are up to each operation."""
    depths, count = [], 0
    for call in calls:
        count += names.get(id(call)) in found.layers
        depths.append(count)
    return depths


def _block(run: Run, ends: tuple[int, int], found: Placed, names: Mapping[int, str]) -> Block:
    start, end = ends
    calls, returned = run.calls[start:end], set(numbers_in(run.outputs))
    needed = {number for call in run.calls[end:] for number in call.reads} | returned
    made = [number for call in calls for number in call.makes]
    named = (names.get(id(call), "") for call in calls)
    layers = tuple(found.layers[name] for name in named if name in found.layers)
    return Block(calls, layers, tuple(n for n in made if n in needed), frozenset(needed))
