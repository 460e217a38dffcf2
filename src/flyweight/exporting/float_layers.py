"""Layers that stay float between integer ones, in files that ONNX Runtime reads.

ONNX Runtime rounds the float weights of a layer itself where what it reads and what it makes is
quantized, with one step for the whole weight (its `WeightBiasQuantization`). That is what a layer
that was left in float shall not suffer. It happens only where what the layer reads has one scale
for the tensor, so such a layer reads it with the same scale written once for each channel.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_MOVING = frozenset({"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
_FUSED = ("Relu", "Clip")


def keep_float(proto: Any) -> None:
    """Let the layers of a graph that have float weights be computed in float, in place.

    Args:
        proto: An `onnx.ModelProto` whose integer layers read integers already.
    """
    graph = proto.graph
    values = {item.name: item for item in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    takers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    for node in list(graph.node):
        if node.op_type in _LAYERS and node.input[1] in values and _is_rounded(node, takers):
            _read_by_channel(graph, node, maker, values)


def _is_rounded(node: Any, takers: dict[str, list[Any]]) -> bool:
    """Return whether the result is rounded, at most after an activation."""
    while True:
        readers = takers.get(node.output[0], [])
        if len(readers) != 1:
            return False
        node = readers[0]
        if node.op_type not in _FUSED:
            return bool(node.op_type == "QuantizeLinear")


def _read_by_channel(graph: Any, layer: Any, maker: dict[str, Any], values: dict[str, Any]) -> None:
    chain = [layer]
    while (before := maker.get(chain[-1].input[0])) is not None and before.op_type in _MOVING:
        chain.append(before)
    if before is None or before.op_type != "DequantizeLinear":
        return
    scale, zero = (numpy_helper.to_array(values[name]) for name in before.input[1:3])
    channels = _channels(graph, before, layer if len(chain) == 1 else None, values)
    if scale.ndim or channels is None:
        return
    made = f"{layer.output[0]}_read"
    names = [f"{made}_scale", f"{made}_zero_point"]
    for name, one in zip(names, (scale, zero), strict=True):
        each: NDArray[Any] = np.full(channels, one, one.dtype)
        graph.initializer.append(numpy_helper.from_array(each, name))
    node = helper.make_node(
        "DequantizeLinear", [before.input[0], *names], [made], name=made, axis=1
    )
    added = [node, *_copies(chain[:0:-1], made)]
    place = next(place for place, one in enumerate(graph.node) if one is layer)
    for one in reversed(added):
        graph.node.insert(place, one)
    layer.input[0] = added[-1].output[0]


def _copies(chain: list[Any], made: str) -> Iterator[Any]:
    """Yield copies of operations, the first of which reads `made`."""
    for number, node in enumerate(chain):
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[0], made = made, f"{made}_{number}"
        copy.output[0] = copy.name = made
        yield copy


def _channels(graph: Any, rounded: Any, layer: Any | None, values: dict[str, Any]) -> int | None:
    """Return the size of axis 1 of what a node makes; None where nothing says it."""
    if layer is not None:
        shape = list(values[layer.input[1]].dims)
        settings = {one.name: one.i for one in layer.attribute}
        if layer.op_type == "Conv":
            return int(shape[1] * settings.get("group", 1))
        if layer.op_type == "ConvTranspose":
            return int(shape[0])
        return int(shape[1] if settings.get("transB", 0) else shape[0])
    for item in (*graph.value_info, *graph.input):
        sizes = item.type.tensor_type.shape.dim
        if item.name in (rounded.output[0], rounded.input[0]) and len(sizes) > 1:
            return int(sizes[1].dim_value) or None
    return None
