"""Integers in an ONNX graph: rounded weights and biases become 8-bit and 32-bit integers.

The exporter writes a weight as float numbers with a node that rounds them. Runtimes read the same
network from the integers, and the file is a quarter of the size.

A padding with zeros before a convolution becomes a setting of the convolution. On its own, ONNX
Runtime computes it in float numbers, between two conversions.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flyweight.errors import ExportError

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_ALONE = 4
"""Nodes from the convolution to the padding, of which nothing else may read a result."""
_LARGEST_ERROR = 0.01
"""Of a rounded bias, in steps of its grid."""


def fold_integers(proto: Any) -> None:
    """Replace rounded weights and biases of a graph by integers, and paddings, in place.

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
        if node.op_type == "Conv":
            graph.fold_padding(node)
    graph.drop_unused()


class _Graph:
    """A graph and the constants in it."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.values: dict[str, NDArray[Any]] = {
            item.name: numpy_helper.to_array(item) for item in graph.initializer
        }
        self.maker = {name: node for node in graph.node for name in node.output}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(item.name for item in graph.output)

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
        # Without a zero point it is 0, which saves as many bytes as the integers take.
        parts = [f"{name}_integers", f"{name}_scale"]
        node = helper.make_node("DequantizeLinear", parts, [name], name=name)
        if np.ndim(steps):
            node.attribute.append(helper.make_attribute("axis", 0))
        place = next(place for place, one in enumerate(self.graph.node) if one is layer)
        self.graph.node.insert(place, node)
        layer.input[2] = name

    def fold_padding(self, layer: Any) -> None:
        """Let a convolution add the zeros that a rounded tensor is padded with before it."""
        chain = [layer]
        for kind in ("DequantizeLinear", "QuantizeLinear", "Pad", "DequantizeLinear"):
            name = chain[-1].input[0]
            node = self.maker.get(name)
            shared = self.uses[name] > 1 and len(chain) < _ALONE
            if node is None or node.op_type != kind or shared:
                return
            chain.append(node)
        _, again, rounding, padding, first = chain
        added = self._zeros_added(padding)
        if added is None or not self._have_one_grid(first, rounding, again):
            return
        settings = {one.name: one for one in layer.attribute}
        if "auto_pad" in settings and settings["auto_pad"].s != b"NOTSET":
            return
        own = list(settings["pads"].ints) if "pads" in settings else [0] * len(added)
        if "pads" in settings:
            layer.attribute.remove(settings["pads"])
        total = [one + other for one, other in zip(own, added, strict=True)]
        layer.attribute.append(helper.make_attribute("pads", total))
        layer.input[0] = first.output[0]
        for node in (padding, rounding, again):
            self.graph.node.remove(node)

    def _zeros_added(self, padding: Any) -> list[int] | None:
        """Return the zeros before and after each spatial axis; None for any other padding."""
        mode = next((one.s for one in padding.attribute if one.name == "mode"), b"constant")
        names = [name for name in padding.input[1:] if name]
        if mode != b"constant" or not all(name in self.values for name in names):
            return None
        pads, *further = (self.values[name] for name in padding.input[1:] if name)
        if len(padding.input) > 3 or any(np.any(value) for value in further):
            return None
        half = len(pads) // 2
        outside = [*pads[:2], *pads[half : half + 2]]
        if any(outside) or min(pads, default=0) < 0:
            return None
        return [int(count) for count in (*pads[2:half], *pads[half + 2 :])]

    def _have_one_grid(self, *nodes: Any) -> bool:
        """Whether nodes round to, or read, the same scale and zero point, one for the tensor."""
        grids = [tuple(self.values.get(name) for name in node.input[1:3]) for node in nodes]
        known = all(part is not None and part.ndim == 0 for grid in grids for part in grid)
        return known and all(grid == grids[0] for grid in grids)

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
