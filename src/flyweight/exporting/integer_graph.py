"""Integers in an ONNX graph: rounded weights and biases become 8-bit and 32-bit integers.

The exporter writes a weight as float numbers with a node that rounds them. Runtimes read the same
network from the integers, and the file is a quarter of the size.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flyweight.errors import ExportError

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_LARGEST_ERROR = 0.01
"""Of a rounded bias, in steps of its grid."""


def fold_integers(proto: Any) -> None:
    """Replace rounded weights and biases of a graph by integers, in place.

    Args:
        proto: An `onnx.ModelProto` with quantization nodes; others are left as they are.

    Raises:
        ExportError: A bias is not a multiple of the steps that it is added in.
    """
    graph = _Graph(proto.graph)
    for node in list(proto.graph.node):
        if node.op_type == "QuantizeLinear" and node.input[0] in graph.values:
            graph.fold_weight(node)
    for node in list(proto.graph.node):
        if node.op_type in _LAYERS and len(node.input) > 2:
            graph.fold_bias(node)
    graph.drop_unused()


class _Graph:
    """A graph and the constants in it."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.values: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in graph.initializer
        }
        self.maker = {name: node for node in graph.node for name in node.output}

    def fold_weight(self, node: Any) -> None:
        """Replace a constant and the node that rounds it by integers."""
        weight, scale, zero = (self.values[name] for name in node.input[:3])
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
        steps, zeros = (part.reshape(shape) if part.ndim else part for part in (scale, zero))
        bounds = np.iinfo(zero.dtype)
        integers = np.clip(np.round(weight / steps) + zeros, bounds.min, bounds.max)
        self.add(node.output[0], integers.astype(zero.dtype))
        self.graph.node.remove(node)

    def fold_bias(self, layer: Any) -> None:
        """Replace a bias by 32-bit integers, where data and weight are integers."""
        data, weight = (self.maker.get(name, layer) for name in layer.input[:2])
        bias = self.values.get(layer.input[2])
        if bias is None or not _dequantizes(data) or not _dequantizes(weight):
            return
        steps = self.values[data.input[1]] * self.values[weight.input[1]]
        integers = np.round(bias.astype(np.float64) / steps)
        if np.abs(bias / steps - integers).max(initial=0) > _LARGEST_ERROR * np.maximum(
            1, np.abs(integers) * 1e-4
        ).max(initial=1):
            raise ExportError(
                "The bias of a layer that runs on integers must be rounded to its steps. Received "
                f"other values at '{layer.name}'. Export a module that fw.quantize returned."
            )
        name = f"{layer.output[0]}_bias"
        self.add(f"{name}_integers", integers.astype(np.int32))
        self.add(f"{name}_scale", steps.astype(np.float32))
        self.add(f"{name}_zero_point", np.zeros(np.shape(steps), np.int32))
        parts = [f"{name}_integers", f"{name}_scale", f"{name}_zero_point"]
        node = helper.make_node("DequantizeLinear", parts, [name], name=name)
        if np.ndim(steps):
            node.attribute.append(helper.make_attribute("axis", 0))
        place = next(place for place, one in enumerate(self.graph.node) if one is layer)
        self.graph.node.insert(place, node)
        layer.input[2] = name

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Add a constant."""
        self.values[name] = values
        self.graph.initializer.append(numpy_helper.from_array(values, name))

    def drop_unused(self) -> None:
        """Remove the constants that no node takes any more."""
        used = {name for node in self.graph.node for name in node.input}
        used |= {item.name for item in self.graph.output}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _dequantizes(node: Any) -> bool:
    kind: str = node.op_type
    return kind == "DequantizeLinear"
