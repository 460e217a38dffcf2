"""Times of a file by its layers, with everything that a runtime executes between them.

A profile names operators. Here every operator belongs to a layer: the one that it computes, or the
one before it in the flow of data. A conversion to integers belongs to the layer after it, so that
an integer layer pays for both of its sides. Operators without a layer before belong to that after.
"""

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from flyweight.errors import MeasureError
from flyweight.measuring.census import census_of, optimized_operators
from flyweight.measuring.file_layers import open_graph
from flyweight.measuring.layer_operators import operators_of
from flyweight.measuring.operators import time_operators
from flyweight.runtimes.protocol import OptimizedOperator
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME

_TO_INTEGERS = "QuantizeLinear"


@dataclass(frozen=True)
class TimesByLayer:
    """What the layers of one file take.

    Attributes:
        layers_ms: Layer to the milliseconds of its operators, in the order of the file.
        integer: Layers that the runtime computes with integers.
        reasons: Every other layer to the reason.
        other_ms: Milliseconds of operators that belong to no layer.
        versions: Runtime name to version.
    """

    layers_ms: Mapping[str, float]
    integer: frozenset[str]
    reasons: Mapping[str, str]
    other_ms: float
    versions: Mapping[str, str]

    def least(self, other: "TimesByLayer") -> "TimesByLayer":
        """Return the smaller times of two measurements of the same file."""
        layers = {name: min(ms, other.layers_ms[name]) for name, ms in self.layers_ms.items()}
        return replace(self, layers_ms=layers, other_ms=min(self.other_ms, other.other_ms))

    @property
    def total_ms(self) -> float:
        """Milliseconds of all operators."""
        return sum(self.layers_ms.values()) + self.other_ms


def time_layers(
    path: str | os.PathLike[str],
    layers: Collection[str],
    *,
    runtime: str = DEFAULT_RUNTIME,
    threads: int = 1,
    seconds: float = 1.0,
) -> TimesByLayer:
    """Execute a file under the runtime's profiler and return the times of its layers.

    The least time of an operator counts: it is the time while no other program uses the core. On a
    busy machine, inferences that take about as long as the scheduler lets a program run are
    interrupted at the same place again and again, which a quartile would count.

    Args:
        path: An ONNX file with static inputs.
        layers: The layers that are wanted; others count as operators between layers.
        runtime: Name of the runtime.
        threads: Threads of one inference.
        seconds: How long to repeat, at least.

    Raises:
        ConfigError: The runtime is not installed.
        FileError: There is no such file, or it is no ONNX file.
        MeasureError: The runtime cannot run the file, or does not name a layer.
    """
    graph = open_graph(path)
    operators, versions = optimized_operators(graph, Path(path), runtime=runtime)
    computing = {one.name: layer.name for layer, one in operators_of(graph, operators).items()}
    wanted = {name: layer for name, layer in computing.items() if layer in layers}
    census = census_of(graph, operators, runtime, versions)
    present = [one.name for one in census.layers if one.name in layers]
    missing = set(present) - set(wanted.values())
    if missing:
        raise MeasureError(
            "A runtime must name the operator of every layer to time them. Received: none for "
            f"'{min(missing)}' of '{path}' on {runtime}. Choose another runtime."
        )
    with tempfile.TemporaryDirectory() as folder:
        renamed = Path(folder) / "renamed.onnx"
        onnx.save(graph.model, renamed)
        found = time_operators(renamed, runtime=runtime, threads=threads, seconds=seconds)
    least = {name: min(times) for name, times in found.times_ms.items() if times}
    owners = owners_of(operators, wanted)
    summed = dict.fromkeys(present, 0.0)
    for name in owners.keys() & least.keys():
        summed[owners[name]] += least[name]
    return TimesByLayer(
        summed,
        frozenset(one.name for one in census.layers if one.is_integer),
        {one.name: one.reason for one in census.layers if not one.is_integer},
        sum(ms for name, ms in least.items() if name not in owners),
        versions,
    )


def owners_of(operators: Sequence[OptimizedOperator], layers: Mapping[str, str]) -> dict[str, str]:
    """Return the layer that every operator belongs to.

    Args:
        operators: The runtime's graph, in order.
        layers: Operator to the layer that it computes.
    """
    maker = {tensor: one.name for one in operators for tensor in one.makes}
    place = {one.name: number for number, one in enumerate(operators)}
    before = {one.name: [maker[name] for name in one.reads if name in maker] for one in operators}
    after: dict[str, list[str]] = {name: [] for name in before}
    for name, sources in before.items():
        for source in sources:
            after[source].append(name)
    upstream = _nearest(operators, before, layers, place)
    downstream = _nearest(operators[::-1], after, layers, {n: -p for n, p in place.items()})
    found = {}
    for one in operators:
        first, second = upstream.get(one.name), downstream.get(one.name)
        if one.kind == _TO_INTEGERS:
            first, second = second, first
        owner = first or second
        if owner is not None:
            found[one.name] = layers[owner]
    return found


def _nearest(
    operators: Sequence[OptimizedOperator],
    edges: Mapping[str, Sequence[str]],
    layers: Mapping[str, str],
    place: Mapping[str, int],
) -> dict[str, str]:
    """Return the operator of the layer that is nearest along the edges, itself included."""
    found: dict[str, str] = {}
    for one in operators:
        if one.name in layers:
            found[one.name] = one.name
            continue
        known = [found[name] for name in edges[one.name] if name in found]
        if known:
            found[one.name] = max(known, key=lambda name: place[name])
    return found
