"""Making a table of layers: find the fast step, then time what is missing, saving as it goes."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path

from flyweight.errors import MeasureError
from flyweight.graph.cost import Geometry
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.channel_step import find_step
from flyweight.measuring.environment import cpu_model
from flyweight.measuring.latency_table import LayerTable, read_table
from flyweight.measuring.layer_timing import OnnxTimer, Timer, chunks
from flyweight.measuring.timed_layers import TimedLayer, Widths, timed_layers

Progress = Callable[[float], None]
"""Told the share of the work that is done."""
_OVERHEAD_MACS = 1e7  # what a file of layers costs beside its own arithmetic


def measure_layers(
    graph: ModelGraph,
    save_to: str | Path,
    *,
    threads: int = 1,
    timer: Timer | None = None,
    progress: Progress | None = None,
) -> LayerTable:
    """Time the network's convolutions and linear layers at a grid of widths on ONNX Runtime.

    Widths are multiples of the fast channel step, which is found first. Layers of equal geometry
    share their times. The file is written after every few layers; called again with it, this goes
    on, and adds what another network needs.

    Args:
        graph: Of the network.
        save_to: The table's file.
        threads: Threads of one inference.
        timer: What times layers; by default ONNX Runtime on this machine.
        progress: Told how far it is.

    Raises:
        MeasureError: The file holds times of another machine, runtime or thread count, the
            network has no layer that can be timed, or the runtime fails.
    """
    path = Path(save_to)
    layers = timed_layers(graph)
    if not layers:
        raise MeasureError(
            "A network must have convolutions or linear layers to time. Received one without. "
            "Its latency cannot be predicted layer by layer."
        )
    table = _begun(path, threads)
    timer = timer or OnnxTimer(threads)
    if table.found is None:
        table = LayerTable(table.made_on, table.date, find_step(layers, timer))
        table.save(path)
    work = [
        (geometry, chunk)
        for geometry, points in _missing(layers, table)
        for chunk in chunks(geometry, points)
    ]
    sizes = [_macs(*item) for item in work]
    for place, (geometry, chunk) in enumerate(work):
        times = timer(geometry, chunk)
        table = table.with_times(geometry, dict(zip(chunk, times, strict=True)))
        table.save(path)
        if progress is not None:
            progress(sum(sizes[: place + 1]) / sum(sizes))
    return table


def _begun(path: Path, threads: int) -> LayerTable:
    """Return the table in the file, or an empty one."""
    try:
        runtime = f"onnxruntime {version('onnxruntime')}"
    except PackageNotFoundError:
        runtime = "none"
    here = {"runtime": runtime, "cpu": cpu_model(), "threads": str(threads)}
    if not path.exists():
        return LayerTable(here, datetime.now(UTC).isoformat(timespec="seconds"))
    table = read_table(path)
    for name, value in here.items():
        if table.made_on.get(name) != value:
            raise MeasureError(
                f"A latency table must be gone on with on the same {name}. Received '{path}' of "
                f"'{table.made_on.get(name)}', where this is '{value}'. Name another file."
            )
    return table


def _missing(
    layers: Sequence[TimedLayer], table: LayerTable
) -> Iterator[tuple[Geometry, list[Widths]]]:
    """Yield what is not in the table, once for every geometry."""
    wanted: dict[Geometry, dict[Widths, None]] = {}
    for layer in layers:
        wanted.setdefault(layer.geometry, {}).update(dict.fromkeys(table.missing(layer)))
    yield from ((geometry, sorted(points)) for geometry, points in wanted.items() if points)


def _macs(geometry: Geometry, points: Sequence[Widths]) -> float:
    area = geometry.images * prod(geometry.size) * prod(geometry.kernel)
    macs = sum(reads * makes / (geometry.groups or reads) for reads, makes in points)
    return area * macs / prod(geometry.stride) + _OVERHEAD_MACS
