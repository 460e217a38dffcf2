"""The graph that ONNX Runtime executes, read from the file that a session writes it to.

Its own operators, such as QLinearAdd, are listed in docs/ContribOperators.md of ONNX Runtime.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from flyweight.runtimes.protocol import FLOAT32, OptimizedOperator

_INTEGER_NAMES = """
    QLinearConv QLinearMatMul ConvInteger MatMulInteger QGemm MatMulIntegerToFloat
    DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention QLinearAdd QLinearMul QLinearConcat
    QLinearAveragePool QLinearGlobalAveragePool QLinearLeakyRelu QLinearSigmoid QLinearSoftmax
    QLinearReduceMean QLinearWhere QEmbedLayerNormalization
"""
INTEGER_KINDS = frozenset(_INTEGER_NAMES.split())
"""Operators of ONNX Runtime that compute with 8-bit integers."""
_FLOAT_NAMES = """
    DequantizeLinear MatMulIntegerToFloat DynamicQuantizeMatMul DynamicQuantizeLSTM QAttention
"""
_FLOAT_RESULTS = frozenset(_FLOAT_NAMES.split())
"""Operators that read integers, or compute with them, and return float numbers."""
_QGEMM_INPUTS = 9
"""Of a QGemm whose result is integers; the last two are the grid of the result."""
_INT8 = "int8"
_NAMES = {
    TensorProto.FLOAT: FLOAT32,
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: _INT8,
    TensorProto.UINT8: _INT8,
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}
# Appended to a name: computes in blocks of channels; was renamed because another has that name.
_SUFFIXES = re.compile(r"(_nchwc)?(_token_\d+)?$")


def operators_in(path: Path) -> tuple[OptimizedOperator, ...]:
    """Return the operators of an optimised graph, in order, those of inner graphs included.

    Args:
        path: An ONNX file that a session wrote.

    Raises:
        Exception: Any error of the parser.
    """
    model = onnx.load(str(path))
    types: dict[str, str] = {}
    found = []
    for graph in _graphs(model.graph):
        types |= _declared(graph)
        for node in graph.node:
            precision = _precision(node, types)
            for name in node.output:
                types.setdefault(name, _made(node, precision))
            found.append(_operator(node, precision))
    return tuple(found)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _declared(graph: Any) -> dict[str, str]:
    """Return the types of tensors as far as the file states them."""
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {item.name: item.type.tensor_type.elem_type for item in values}
    types |= {item.name: item.data_type for item in graph.initializer}
    return {name: _NAMES.get(number, "") for name, number in types.items()}


def _precision(node: Any, types: dict[str, str]) -> str:
    """Return the type that an operator computes in: its own, or that of the first input."""
    if node.op_type in INTEGER_KINDS:
        return _INT8
    known = (types.get(name, "") for name in node.input)
    return next((name for name in known if name), "")


def _made(node: Any, precision: str) -> str:
    """Return the type of a result that the file does not state."""
    if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return _INT8
    if node.op_type in _FLOAT_RESULTS or (
        node.op_type == "QGemm" and len(node.input) < _QGEMM_INPUTS
    ):
        return FLOAT32
    if node.op_type in ("ConvInteger", "MatMulInteger"):
        return "int32"
    if node.op_type == "Cast":
        return _NAMES.get(next(one.i for one in node.attribute if one.name == "to"), "")
    return precision


def _operator(node: Any, precision: str) -> OptimizedOperator:
    made = tuple(name for name in node.output if name)
    names = (_SUFFIXES.sub("", name) for name in (node.name, *made) if name)
    return OptimizedOperator(
        name=node.name or made[0],
        kind=node.op_type,
        precision=precision,
        nodes=tuple(dict.fromkeys(names)),
        reads=tuple(name for name in node.input if name),
        makes=made,
    )
