"""Timing of layers at chosen widths: one ONNX file of many layers, timed operator by operator."""

import tempfile
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from flyweight.errors import MeasureError
from flyweight.graph.cost import Geometry
from flyweight.measuring.operators import time_operators
from flyweight.measuring.timed_layers import Widths, geometry_key, weight_shape
from flyweight.on_demand import load
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, runtime_entry

_MOST_BYTES = 2**27  # of one file's weights and activations, so that small machines can measure
_SAVE_LAYERS = "flyweight.measuring.layer_files:save_layers"  # imports onnx


class Timer(Protocol):
    """Times one geometry at several widths, in milliseconds."""

    def __call__(self, geometry: Geometry, points: Sequence[Widths]) -> list[float]:
        """Return one time for each pair of widths."""


class RuntimeTimer:
    """Times layers on a runtime.

    All layers of one file run one after the other in every inference, so the caches hold values of
    other layers when each begins, as in a network. The lower quartile of a layer's times counts: it
    is the time while no other program uses the core.

    Args:
        threads: Threads of one inference.
        runtime: Name of the runtime.
        seconds: How long to repeat each file, at least.
        runs: Timed inferences of each file, at least.
    """

    def __init__(
        self,
        threads: int = 1,
        *,
        runtime: str = DEFAULT_RUNTIME,
        seconds: float = 0.5,
        runs: int = 15,
    ) -> None:
        self.threads, self.runtime, self.seconds, self.runs = threads, runtime, seconds, runs

    def __call__(self, geometry: Geometry, points: Sequence[Widths]) -> list[float]:
        """Return one time for each pair of widths, in milliseconds.

        Raises:
            ConfigError: The runtime is not installed.
            MeasureError: The runtime cannot run such a layer.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layers.onnx"
            load(_SAVE_LAYERS)(path, geometry, points)
            found = time_operators(
                path,
                threads=self.threads,
                seconds=self.seconds,
                runs=self.runs,
                runtime=self.runtime,
            )
        times = {node: each.times_ms for each in found.operators for node in each.nodes}
        missing = [points[k] for k in range(len(points)) if not times.get(f"layer{k}")]
        if missing:
            raise MeasureError(
                f"{runtime_entry(self.runtime).title} must report the time of a "
                f"{geometry_key(geometry)}. Received: none at {missing[0][0]} input and "
                f"{missing[0][1]} output channels. Report this with the runtime's version."
            )
        return [float(np.percentile(times[f"layer{k}"], 25)) for k in range(len(points))]


def chunks(geometry: Geometry, points: Sequence[Widths]) -> Iterator[list[Widths]]:
    """Split points into files of a size that small machines can measure."""
    chunk: list[Widths] = []
    size = 0
    for point in points:
        more = 4 * (prod(weight_shape(geometry, point)) + sum(point) * _positions(geometry))
        if chunk and size + more > _MOST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(point)
        size += more
    if chunk:
        yield chunk


def _positions(geometry: Geometry) -> int:
    return geometry.images * prod(geometry.size)
