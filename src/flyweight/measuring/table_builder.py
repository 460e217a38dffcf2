"""Measuring of a latency table: find the fast channel step, then time the missing layers."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path

from flyweight.errors import MeasureError
from flyweight.graph.cost import Geometry
from flyweight.graph.model_graph import ModelGraph
from flyweight.measuring.channel_step import find_step
from flyweight.measuring.environment import cpu_model
from flyweight.measuring.latency_table import LayerTable, read_table
from flyweight.measuring.layer_timing import RuntimeTimer, Timer, chunks
from flyweight.measuring.timed_layers import TimedLayer, Widths, timed_layers
from flyweight.progress import Progress, progress_of
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, installed_version
from flyweight.workspace import MadeFrom, differences

_OVERHEAD_MACS = 1e7  # the cost of a file of layers beside its own arithmetic, in MACs


def measure_layers(
    graph: ModelGraph,
    save_to: str | Path,
    *,
    threads: int = 1,
    runtime: str = DEFAULT_RUNTIME,
    timer: Timer | None = None,
    progress: Progress | bool = False,
) -> LayerTable:
    """Time the network's convolutions and linear layers at a grid of widths on a runtime.

    Widths are multiples of the fast channel step, which is found first. Layers of equal geometry
    share their times. The file is written after every few layers. A second call with the same file
    resumes an interrupted measurement, or adds the layers of another network.

    Args:
        graph: The network.
        save_to: The table's file.
        threads: Threads of one inference.
        runtime: Name of the runtime, see `flyweight.runtimes.runtime_table`.
        timer: Function that times layers; by default it runs them on `runtime` on this machine.
        progress: Receives the multiply-adds of the layers that are timed.

    Raises:
        ConfigError: There is no such runtime, or it is not installed.
        MeasureError: The file holds times of another machine, runtime or thread count, the
            network has no layer that can be timed, or the runtime fails.
    """
    path = Path(save_to)
    layers = timed_layers(graph)
    if not layers:
        raise MeasureError(
            "A network must have convolutions or linear layers to time. Received: one without. "
            "Measure exported files of it instead: flyweight bench FILE"
        )
    table = _begun(path, runtime, threads)
    timer = timer or RuntimeTimer(threads, runtime=runtime)
    if table.found is None:
        table = LayerTable(table.made_on, table.date, find_step(layers, timer))
        table.save(path)
    work = [
        (geometry, chunk)
        for geometry, points in _missing(layers, table)
        for chunk in chunks(geometry, points)
    ]
    sizes = [_macs(*item) for item in work]
    task = progress_of(progress).start("layers", sum(sizes))
    try:
        for place, (geometry, chunk) in enumerate(work):
            times = timer(geometry, chunk)
            table = table.with_times(geometry, dict(zip(chunk, times, strict=True)))
            table.save(path)
            task.update(sum(sizes[: place + 1]))
    finally:
        task.finish()
    return table


def _begun(path: Path, runtime: str, threads: int) -> LayerTable:
    """Return the table in the file, or an empty one."""
    here = {"runtime": installed_version(runtime), "cpu": cpu_model(), "threads": str(threads)}
    if not path.exists():
        return LayerTable(here, datetime.now(UTC).isoformat(timespec="seconds"))
    table = read_table(path)
    known = {name: value for name, value in table.made_on.items() if name in here}
    for one in differences(known, MadeFrom(here)):
        raise MeasureError(
            f"A latency table must be continued on the same {one.name}. Received: '{path}' of "
            f"'{one.was}', where this is '{one.now}'. Name another file."
        )
    return table


def _missing(
    layers: Sequence[TimedLayer], table: LayerTable
) -> Iterator[tuple[Geometry, list[Widths]]]:
    """Yield the widths that are not in the table, once for every geometry."""
    wanted: dict[Geometry, dict[Widths, None]] = {}
    for layer in layers:
        wanted.setdefault(layer.geometry, {}).update(dict.fromkeys(table.missing(layer)))
    yield from ((geometry, sorted(points)) for geometry, points in wanted.items() if points)


def _macs(geometry: Geometry, points: Sequence[Widths]) -> float:
    area = geometry.images * prod(geometry.size) * prod(geometry.kernel)
    macs = sum(
        in_channels * out_channels / (geometry.groups or in_channels)
        for in_channels, out_channels in points
    )
    return area * macs / prod(geometry.stride) + _OVERHEAD_MACS
