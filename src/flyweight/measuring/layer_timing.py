"""Timing layers at chosen widths: one ONNX file of layers, side by side, by operator."""

import tempfile
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flyweight.errors import MeasureError
from flyweight.graph.cost import Geometry
from flyweight.measuring.operators import time_operators
from flyweight.measuring.timed_layers import Widths, describe

_OPSET = 20
_MOST_BYTES = 2**27  # of one file's weights and activations, so that small machines can measure


class Timer(Protocol):
    """Times one geometry at several widths, in ms."""

    def __call__(self, geometry: Geometry, points: Sequence[Widths]) -> list[float]:
        """Return one time for each pair of widths."""


class OnnxTimer:
    """Times layers on ONNX Runtime.

    The layers of one file run one after the other in every inference, so the caches hold other
    layers' values when each begins, as in a network. Of the times of one layer the lower quartile
    counts: what it takes while no other program has its core.
    """

    def __init__(self, threads: int = 1, *, seconds: float = 0.5, runs: int = 15) -> None:
        self.threads, self.seconds, self.runs = threads, seconds, runs

    def __call__(self, geometry: Geometry, points: Sequence[Widths]) -> list[float]:
        """Return one time for each pair of widths.

        Raises:
            MeasureError: The runtime is missing or cannot run such a layer.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layers.onnx"
            save_layers(path, geometry, points)
            times = time_operators(
                path, threads=self.threads, seconds=self.seconds, runs=self.runs
            ).times_ms
        by_layer = {name.partition("_")[0]: found for name, found in times.items()}
        missing = [points[k] for k in range(len(points)) if not by_layer.get(f"layer{k}")]
        if missing:
            raise MeasureError(
                f"The runtime must tell the time of a {describe(geometry)}. Received: none at "
                f"{missing[0][0]} to {missing[0][1]} channels. Report this with its version."
            )
        return [float(np.percentile(by_layer[f"layer{k}"], 25)) for k in range(len(points))]


def chunks(geometry: Geometry, points: Sequence[Widths]) -> Iterator[list[Widths]]:
    """Split points into files of a size that small machines can measure."""
    chunk: list[Widths] = []
    size = 0
    for point in points:
        more = 4 * (prod(_weight_shape(geometry, point)) + sum(point) * _positions(geometry))
        if chunk and size + more > _MOST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(point)
        size += more
    if chunk:
        yield chunk


def save_layers(path: Path, geometry: Geometry, points: Sequence[Widths]) -> None:
    """Write one ONNX file with a layer `layer0`, `layer1`, ... for each pair of widths."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, weights, results, inputs = [], [], [], {}
    for place, (reads, makes) in enumerate(points):
        source, name = f"channels{reads}", f"layer{place}"
        shape = _input_shape(geometry, reads)
        inputs[source] = helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)
        shapes = (_weight_shape(geometry, (reads, makes)), (makes,))
        for suffix, wanted in zip(("weight", "bias"), shapes, strict=True):
            values = generator.standard_normal(wanted, dtype=np.float32)
            weights.append(numpy_helper.from_array(values, f"{name}.{suffix}"))
        kind, attributes = _operator(geometry, reads)
        names = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "layers", list(inputs.values()), results, weights)
    opset = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def _operator(geometry: Geometry, reads: int) -> tuple[str, dict[str, Any]]:
    if geometry.kind == "linear":
        return "Gemm", {"transB": 1}
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.stride,
        "pads": [*geometry.padding, *geometry.padding],
        "dilations": geometry.dilation,
        "group": geometry.groups or reads,
    }
    if geometry.kind == "convolution":
        return "Conv", attributes
    return "ConvTranspose", {**attributes, "output_padding": geometry.output_padding}


def _input_shape(geometry: Geometry, reads: int) -> tuple[int, ...]:
    return (geometry.images, reads, *geometry.size)


def _weight_shape(geometry: Geometry, widths: Widths) -> tuple[int, ...]:
    reads, makes = widths
    groups = geometry.groups or reads
    if geometry.kind == "transposed":
        return (reads, makes // groups, *geometry.kernel)
    return (makes, reads // groups, *geometry.kernel)


def _positions(geometry: Geometry) -> int:
    return geometry.images * prod(geometry.size)
