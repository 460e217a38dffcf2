"""Layers of an ONNX file: its operations with a weight and its matrix products, with neighbours.

`open_graph` gives every node a number and a name of its own, because exporters leave names empty or
use them twice, and a runtime keeps names where it keeps nothing else.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions

from flyweight.errors import FileError
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes

_MOST_BYTES = 2**31
LAYER_KINDS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "DeformConv": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
    "LSTM": (0, 1),
    "GRU": (0, 1),
    "RNN": (0, 1),
    "Attention": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
    "FusedConv": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulNBits": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "DynamicQuantizeLSTM": (0, 1),
    "MultiHeadAttention": (0, 1),
    "QAttention": (0, 1),
}
"""Operation of a layer to the places of its data and of its weight among the inputs. The second
half are operations of ONNX Runtime, which files of its tools contain."""
BIAS_PLACE = 2
_ID = "census_node_{}_"
_ID_PATTERN = re.compile(r"census_node_(\d+)_")
_MOVING = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class Layer:
    """An operation with a weight, or a matrix product.

    Attributes:
        number: Of its node.
        name: Its name in the file; where that is empty or not unique, the name of its result.
        kind: Its operation in ONNX.
    """

    number: int
    name: str
    kind: str


@dataclass(frozen=True)
class Rounding:
    """The grid of a tensor that the file quantizes.

    Attributes:
        bits: Of its integers.
        signed: Whether they are.
        scales: One, or one for each channel; None where it is computed.
        zero_points: As many.
        axis: Of the channels.
    """

    bits: int
    signed: bool
    scales: NDArray[Any] | None
    zero_points: NDArray[Any] | None
    axis: int


class FileGraph:
    """A graph as its file has it, nodes of inner graphs included.

    Args:
        model: An `onnx.ModelProto`; the names of its nodes are replaced.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        graphs = tuple(_graphs(model.graph))
        self.nodes = tuple(node for graph in graphs for node in graph.node)
        self.names = tuple(str(node.name) for node in self.nodes)
        for number, node in enumerate(self.nodes):
            node.name = _ID.format(number)
        self.stored = {item.name: item for graph in graphs for item in graph.initializer}
        self.returned = frozenset(item.name for graph in graphs for item in graph.output)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.takers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.takers.setdefault(name, []).append(node)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order of the file."""
        count = Counter(self.names)
        return tuple(
            Layer(number, name if name and count[name] == 1 else node.output[0], node.op_type)
            for number, (node, name) in enumerate(zip(self.nodes, self.names, strict=True))
            if node.op_type in LAYER_KINDS
            and len(node.input) > LAYER_KINDS[node.op_type][1]
            and not all(self.is_constant(one) for one in node.input)
        )

    @property
    def holds_integers(self) -> bool:
        """Whether anything in the file is quantized."""
        return any("Quantize" in node.op_type or _is_integer(node) for node in self.nodes)

    def called(self, node: Any) -> str:
        """Return a node for a person: its operation, and its name if it has one."""
        name = self.names[number_in(node.name)[0]]
        return f"{node.op_type} '{name}'" if name else f"{node.op_type} of '{node.output[0]}'"

    def is_constant(self, tensor: str) -> bool:
        """Return whether the file stores a tensor, or makes it of stored ones alone."""
        seen, waiting = set(), [tensor]
        while waiting:
            name = waiting.pop()
            if name in seen or name in self.stored or not name:
                continue
            seen.add(name)
            node = self.maker.get(name)
            if node is None or (node.op_type != "Constant" and not node.input):
                return False
            waiting.extend(node.input)
        return True

    def values(self, tensor: str) -> NDArray[Any] | None:
        """Return a stored tensor; None for one that is computed."""
        node = self.maker.get(tensor)
        if tensor in self.stored:
            array: NDArray[Any] = numpy_helper.to_array(self.stored[tensor])
            return array
        if node is not None and node.op_type == "Constant":
            held = [one for one in node.attribute if one.name == "value"]
            return numpy_helper.to_array(held[0].t) if held else None
        return None

    def source(self, tensor: str) -> Any | None:
        """Return the node that computes a tensor's values; those that only move them are passed."""
        node = self.maker.get(tensor)
        while node is not None and node.op_type in _MOVING:
            node = self.maker.get(node.input[0])
        return node

    def rounding(self, tensor: str) -> Rounding | None:
        """Return the grid of a tensor; None where the file leaves it in float."""
        node = self.source(tensor)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self.grid(node)

    def grid(self, node: Any) -> Rounding:
        """Return the grid of a QuantizeLinear or DequantizeLinear."""
        zero = self.values(node.input[2]) if len(node.input) > 2 else None
        given = zero if zero is not None else self._integers(node)
        numbers = None if given is None else given.dtype
        bits = 8 * numbers.itemsize if numbers is not None else 8
        signed = numbers is not None and numbers.kind == "i"
        scales = self.values(node.input[1])
        axis, stored = attribute(node, "axis", 1), self.values(node.input[0])
        if axis < 0 and stored is not None:
            axis += stored.ndim
        if zero is None:
            zero = np.zeros((), np.int8 if signed else np.uint8)
        return Rounding(bits, signed, scales, zero, axis)

    def _integers(self, node: Any) -> NDArray[Any] | None:
        return self.values(node.input[0]) if node.op_type == "DequantizeLinear" else None


def open_graph(path: str | os.PathLike[str]) -> FileGraph:
    """Read an ONNX file, with the weights that lie beside it.

    Raises:
        FileError: There is no such file, it is no ONNX file, or it holds more than 2 GB.
    """
    source = Path(path)
    must, remedy = f"'{source}' must be an ONNX file of less than 2 GB.", "Give another file."
    with refusing(FileError, must, "", remedy):
        model = onnx.load_from_string(read_bytes(source, _MOST_BYTES))
        load_external_data_for_model(model, str(source.parent))
        if not model.graph.node:
            raise ValueError("it holds no operations")
        return FileGraph(inline_local_functions(model))


def number_in(text: str) -> tuple[int, ...]:
    """Return the numbers of the nodes that a runtime's name contains."""
    return tuple(int(found) for found in _ID_PATTERN.findall(text))


def weight_of(node: Any) -> str:
    """Return the name of a layer's weight, or of the second factor of a product."""
    return str(node.input[LAYER_KINDS[node.op_type][1]])


def data_of(node: Any) -> str:
    """Return the name of what a layer reads."""
    return str(node.input[LAYER_KINDS[node.op_type][0]])


def attribute(node: Any, name: str, default: int = 0) -> int:
    """Return a whole number among the attributes of a node."""
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def followers(graph: FileGraph, node: Any) -> Iterator[Any]:
    """Yield the nodes after a layer, as far as one alone follows, up to the next layer."""
    while len(node.output) == 1:
        readers: Sequence[Any] = graph.takers.get(node.output[0], ())
        if len(readers) != 1 or readers[0].op_type in LAYER_KINDS:
            return
        node = readers[0]
        yield node


def _is_integer(node: Any) -> bool:
    kind: str = node.op_type
    return kind.startswith("QLinear") or kind in ("QGemm", "MatMulInteger", "ConvInteger")


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                if inner.node:
                    yield from _graphs(inner)
