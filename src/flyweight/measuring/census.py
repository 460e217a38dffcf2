"""Census: which layers of a file a runtime computes with integers, and why it leaves the others.

The runtime's own optimised graph says what is computed. The file says why: a layer that stayed in
float lacks something there that the runtime needs.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from flyweight.errors import ConfigError, MeasureError
from flyweight.measuring.environment import usable_cores
from flyweight.measuring.file_layers import FileGraph, Layer, open_graph
from flyweight.measuring.float_islands import islands_of
from flyweight.measuring.float_reasons import NOT_FOUND, reason_for
from flyweight.measuring.layer_operators import operators_of
from flyweight.measuring.process import RequestError, WorkerProcess
from flyweight.runtimes.protocol import FLOAT32, OptimizedOperator
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

INTEGER = "int8"
UNKNOWN_PRECISION = "unknown"
_SHORT = {"bfloat16": "bf16"}


@dataclass(frozen=True)
class LayerCensus:
    """How a runtime computes one layer of a file.

    Attributes:
        name: Of the layer in the file; in files of flyweight that of the operation.
        kind: Its operation in ONNX, such as "Conv".
        precision: "int8" for products of 8-bit integers, "float32", "bf16", ..., or "unknown" where
            the runtime's graph does not name the layer.
        reason: Why it is not "int8"; empty where it is.
    """

    name: str
    kind: str
    precision: str
    reason: str

    @property
    def is_integer(self) -> bool:
        """Whether the runtime multiplies integers."""
        return self.precision == INTEGER


@dataclass(frozen=True)
class Census:
    """How a runtime computes the layers of a file.

    Attributes:
        runtime: Name of the runtime.
        layers: In the order of the file.
        islands: Number of places between integer layers where the runtime computes in float.
        island_operations: Operations there that are no layers, by kind, to their number; roundings
            at the borders are not counted.
        versions: Runtime name to version.
    """

    runtime: str
    layers: tuple[LayerCensus, ...]
    islands: int = 0
    island_operations: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def integer_count(self) -> int:
        """Number of layers that run on integers."""
        return sum(layer.is_integer for layer in self.layers)


def take_census(
    path: str | os.PathLike[str],
    *,
    runtime: str = DEFAULT_RUNTIME,
    precision: str = FLOAT32,
    timeout_seconds: float = 300.0,
) -> Census:
    """Return how a runtime computes the layers of an ONNX file, which it loads and does not run.

    Args:
        path: An ONNX file of any tool.
        runtime: Name of the runtime, see `flyweight.runtimes.runtime_table`.
        precision: Precision of float operations.
        timeout_seconds: How long the runtime may take to load the file.

    Raises:
        ConfigError: There is no such runtime, it is not installed, or it does not support the
            precision on this machine.
        FileError: There is no such file, it is no ONNX file, or it holds more than 2 GB.
        MeasureError: The runtime cannot load the file, or the process that loads it ended.
    """
    require_installed(runtime)
    graph = open_graph(path)
    operators, versions = optimized_operators(
        graph,
        Path(path),
        runtime=runtime,
        precision=precision,
        timeout_seconds=timeout_seconds,
    )
    return census_of(graph, operators, runtime, versions)


def census_of(
    graph: FileGraph,
    operators: tuple[OptimizedOperator, ...],
    runtime: str,
    versions: Mapping[str, str],
) -> Census:
    """Return the census of a file whose optimised graph is known.

    Args:
        graph: The file.
        operators: What the runtime made of it.
        runtime: Name of the runtime.
        versions: Runtime name to version.
    """
    computed = operators_of(graph, operators)
    layers = tuple(_layer(graph, layer, computed.get(layer), runtime) for layer in graph.layers)
    islands = islands_of(operators)
    of_layers = {operator.name for operator in computed.values()}
    kinds = Counter(
        operator.kind for island in islands for operator in island if operator.name not in of_layers
    )
    return Census(runtime, layers, len(islands), dict(sorted(kinds.items())), dict(versions))


def _layer(
    graph: FileGraph, layer: Layer, operator: OptimizedOperator | None, runtime: str
) -> LayerCensus:
    if operator is None:
        return LayerCensus(layer.name, layer.kind, UNKNOWN_PRECISION, NOT_FOUND)
    precision = _SHORT.get(operator.precision, operator.precision) or UNKNOWN_PRECISION
    if precision == INTEGER:
        return LayerCensus(layer.name, layer.kind, precision, "")
    title = require_installed(runtime).title
    reason = reason_for(graph, graph.nodes[layer.number], runtime, title)
    return LayerCensus(layer.name, layer.kind, precision, reason)


def optimized_operators(
    graph: FileGraph,
    path: Path,
    *,
    runtime: str = DEFAULT_RUNTIME,
    precision: str = FLOAT32,
    timeout_seconds: float = 300.0,
) -> tuple[tuple[OptimizedOperator, ...], dict[str, str]]:
    """Return what a runtime makes of a file, with the names of its graph, and versions.

    The runtime loads the file in a process of its own.

    Args:
        graph: The file.
        path: Where it is, for messages.
        runtime: Name of the runtime.
        precision: Precision of float operations.
        timeout_seconds: How long the runtime may take to load the file.

    Raises:
        ConfigError: The runtime is not installed, or does not support the precision here.
        MeasureError: The runtime cannot load the file, or the process that loads it ended.
    """
    title = require_installed(runtime).title
    with (
        tempfile.TemporaryDirectory() as folder,
        WorkerProcess(path.name, timeout_seconds=timeout_seconds) as child,
    ):
        renamed = Path(folder) / "renamed.onnx"
        try:
            onnx.save(graph.model, renamed)
            started = child.ask("start", cores=list(usable_cores()[:1]), runtime=runtime)
            settings = {"threads": 1, "precision": precision}
            found = child.ask("optimized", path=str(renamed), settings=settings)
        except RequestError as error:
            if error.kind == ConfigError.__name__:
                raise ConfigError(str(error)) from error
            raise MeasureError(
                f"'{path}' must be an ONNX file that {title} can load. Received: {error}. "
                "Give another file."
            ) from error
    return tuple(_operator(values) for values in found), started["versions"]


def _operator(values: dict[str, Any]) -> OptimizedOperator:
    lists = {name: tuple(values[name]) for name in ("nodes", "reads", "makes")}
    return OptimizedOperator(**{**values, **lists})
