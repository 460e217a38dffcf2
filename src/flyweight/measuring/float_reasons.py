"""Reasons why a runtime leaves a layer of a quantized file in float, as the file shows them.

Each cause was found by building a layer that runs on integers, changing one thing, and reading the
graph that the runtime made of it; tests/measuring/test_float_reasons.py does so again. A cause that
is not among them is not guessed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from flyweight.measuring.file_layers import (
    BIAS_PLACE,
    FileGraph,
    attribute,
    data_of,
    weight_of,
)
from flyweight.processors import processor_flags

Cause = Callable[[FileGraph, Any], str]
"""Returns a reason for a node that is a layer, or an empty text where this is not the reason."""
FLOAT_FILE = "the file holds float weights"
UNKNOWN = "no known cause; the runtime left it in float"
NOT_FOUND = "the runtime's graph does not name it"
WITHOUT_KERNEL = {
    "onnxruntime": {
        "ConvTranspose": "transposed convolutions",
        "DeformConv": "deformable convolutions",
        "Einsum": "Einsum",
        "LSTM": "recurrent layers of quantized weights",
        "GRU": "recurrent layers of quantized weights",
        "RNN": "recurrent layers of quantized weights",
    },
    "openvino": {},
}
"""Runtime to the operations that it has no integer kernel for on the CPU, as text. The operators
of ONNX Runtime are listed in its docs/OperatorKernels.md."""
_NO_KERNEL = "{title} has no integer kernel for {kind}"
_OF_FLOATS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}
)
"""Operations that quantization nodes around them make integer; the causes are about these."""
_INT32_BITS = 32
_SAME = 1e-3
"""Relative difference up to which two scales are one: ONNX Runtime's own limit is of this size."""


def reason_for(graph: FileGraph, node: Any, runtime: str, title: str) -> str:
    """Return why a runtime computes a layer in float.

    Args:
        graph: The file.
        node: Of the layer.
        runtime: Name of the runtime.
        title: The runtime's name for a person.
    """
    if not graph.holds_integers:
        return FLOAT_FILE
    kind = WITHOUT_KERNEL[runtime].get(node.op_type)
    if kind is not None:
        return _NO_KERNEL.format(title=title, kind=kind)
    if node.op_type not in _OF_FLOATS:
        return UNKNOWN
    found = (cause(graph, node) for cause in CAUSES[runtime])
    return next((reason for reason in found if reason), UNKNOWN)


def _float_weight(graph: FileGraph, node: Any) -> str:
    weight = weight_of(node)
    if graph.rounding(weight) is not None:
        return ""
    maker = graph.source(weight)
    if graph.is_constant(weight):
        return f"its weight '{weight}' is not quantized"
    made = "an input of the file" if maker is None else f"the result of {graph.called(maker)}"
    return f"its second factor is not quantized: it is {made}"


def _float_data(graph: FileGraph, node: Any) -> str:
    data = data_of(node)
    if graph.rounding(data) is not None:
        return ""
    maker = graph.source(data)
    made = "an input of the file" if maker is None else f"the result of {graph.called(maker)}"
    return f"its input is not quantized: it is {made}"


def _wide_data(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(data_of(node))
    if grid is None or grid.bits == 8:
        return ""
    return f"its input has {grid.bits} bits, and integer kernels take 8"


def _data_by_channel(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(data_of(node))
    if grid is None or grid.scales is None or grid.scales.size == 1:
        return ""
    return f"its input has {grid.scales.size} scales, one for each channel, and must have one"


def _weight_axis(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(weight_of(node))
    maker = graph.maker.get(weight_of(node))
    moved = maker is not None and maker.op_type != "DequantizeLinear"
    if grid is None or grid.scales is None or grid.scales.size == 1 or moved:
        return ""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return ""
    by_rows = node.op_type == "Conv" or attribute(node, "transB")
    right = 0 if by_rows else 1
    if grid.axis == right:
        return ""
    return (
        f"its weight has scales along axis {grid.axis}; scales of output channels lie along axis "
        f"{right}"
    )


def _weight_zero_point(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(weight_of(node))
    if grid is None or not graph.is_constant(weight_of(node)) or grid.zero_points is None:
        return ""
    if grid.signed and not grid.zero_points.any():
        return ""
    sign = "signed" if grid.signed else "unsigned"
    zero = int(grid.zero_points.flat[0])
    return f"its weight is {sign} with the zero point {zero}; it must be signed with 0"


def _transposed_data(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(data_of(node))
    if node.op_type != "ConvTranspose" or grid is None or grid.zero_points is None:
        return ""
    if not grid.zero_points.any():
        return ""
    zero = int(grid.zero_points.flat[0])
    return f"its input has the zero point {zero}; a transposed convolution runs on integers with 0"


def _signed_data(graph: FileGraph, node: Any) -> str:
    grid = graph.rounding(data_of(node))
    if node.op_type != "Conv" or grid is None or grid.zero_points is None or not grid.signed:
        return ""
    if not grid.zero_points.any() or "amx_int8" not in (processor_flags() or ()):
        return ""
    zero = int(grid.zero_points.flat[0])
    return (
        f"its input is signed with the zero point {zero}; on a processor with AMX, a convolution "
        "runs on signed integers with 0 alone, or on unsigned ones"
    )


def _product(graph: FileGraph, node: Any) -> str:
    if node.op_type != "MatMul" or graph.is_constant(weight_of(node)):
        return ""
    first, second = (graph.rounding(name(node)) for name in (data_of, weight_of))
    if first is None or second is None or first.zero_points is None or second.zero_points is None:
        return ""
    if not first.zero_points.any() and not second.zero_points.any() and second.signed:
        return ""
    zeros = [int(one.zero_points.flat[0]) for one in (first, second) if one.zero_points is not None]
    sign = "signed" if second.signed else "unsigned"
    return (
        f"its factors have the zero points {zeros[0]} and {zeros[1]} and the second is {sign}; a "
        "product of two computed tensors needs 0 in both, and a signed second one"
    )


def _bias(graph: FileGraph, node: Any) -> str:
    if len(node.input) <= BIAS_PLACE or not node.input[BIAS_PLACE]:
        return ""
    grid = graph.rounding(node.input[BIAS_PLACE])
    if grid is None:
        return ""
    if grid.bits != _INT32_BITS:
        return f"its bias has {grid.bits} bits and must have 32"
    sources = [graph.rounding(name(node)) for name in (data_of, weight_of)]
    steps = [None if one is None else one.scales for one in sources]
    if node.op_type != "Conv" or grid.scales is None or any(one is None for one in steps):
        return ""
    wanted = np.prod(np.broadcast_arrays(*(np.asarray(one).ravel() for one in steps)), axis=0)
    given = grid.scales.ravel()
    if given.size in (1, wanted.size) and np.allclose(given, wanted, rtol=_SAME, atol=0):
        return ""
    return "the scale of its bias is not that of its input times that of its weight"


def _result(graph: FileGraph, node: Any) -> str:
    """Return why the result of a convolution cannot be integers."""
    while True:
        made = node.output[0]
        readers = graph.takers.get(made, [])
        if made in graph.returned:
            return "its result is returned by the file, and not quantized"
        if len(readers) != 1:
            others = [graph.called(one) for one in readers if one.op_type != "QuantizeLinear"]
            return f"its result is also read by {others[0]}" if others else _SHARED
        reader = readers[0]
        if reader.op_type == "QuantizeLinear":
            return ""
        if reader.op_type not in _FUSED:
            return (
                f"its result is not quantized before {graph.called(reader)}, which is not computed "
                "with it"
            )
        found = _FUSED[reader.op_type](graph, reader)
        if found:
            return found
        node = reader


_SHARED = "its result is quantized several times"


def _after_relu(graph: FileGraph, relu: Any) -> str:
    quantizer = _only_quantizer(graph, relu)
    grid = None if quantizer is None else graph.grid(quantizer)
    if grid is None or grid.zero_points is None:
        return ""
    zero, least = int(grid.zero_points.flat[0]), -(2 ** (grid.bits - 1)) if grid.signed else 0
    if zero == least:
        return ""
    return f"the zero point after {graph.called(relu)} is {zero}, and must be {least}"


def _after_clip(graph: FileGraph, clip: Any) -> str:
    quantizer = _only_quantizer(graph, clip)
    grid = None if quantizer is None else graph.grid(quantizer)
    if grid is None or grid.zero_points is None or grid.scales is None:
        return ""
    lowest = -(2 ** (grid.bits - 1)) if grid.signed else 0
    steps = np.array([lowest, lowest + 2**grid.bits - 1]) - int(grid.zero_points.flat[0])
    least, most = (float(one) for one in steps * float(grid.scales.flat[0]))
    bounds = [graph.values(name) for name in list(clip.input)[1:3] if name]
    if len(bounds) != 2 or any(one is None for one in bounds):
        return ""
    lower, upper = (float(np.asarray(one).flat[0]) for one in bounds)
    if lower <= least and most <= upper:
        return ""
    return (
        f"the grid after {graph.called(clip)} reaches from {least:.4g} to {most:.4g}, and must lie "
        f"within {lower:g} and {upper:g}"
    )


def _only_quantizer(graph: FileGraph, node: Any) -> Any | None:
    readers = graph.takers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" else None


_FUSED: dict[str, Cause] = {"Relu": _after_relu, "Clip": _after_clip}
"""Operations that ONNX Runtime drops where the grid of their result has their bounds."""


def _read_twice(graph: FileGraph, node: Any) -> str:
    made = node.output[0]
    readers = graph.takers.get(made, [])
    others = [one for one in readers if one.op_type != "QuantizeLinear"]
    if others and len(others) < len(readers):
        return f"its result is quantized, and also read by {graph.called(others[0])}"
    if made in graph.returned and readers:
        return "its result is quantized, and also returned by the file"
    return ""


def _conv_result(graph: FileGraph, node: Any) -> str:
    # Other products have kernels that return float numbers.
    return _result(graph, node) if node.op_type == "Conv" else _read_twice(graph, node)


CAUSES: dict[str, tuple[Cause, ...]] = {
    "onnxruntime": (
        _float_weight,
        _float_data,
        _wide_data,
        _data_by_channel,
        _bias,
        _conv_result,
    ),
    "openvino": (
        _float_weight,
        _float_data,
        _wide_data,
        _weight_zero_point,
        _weight_axis,
        _transposed_data,
        _signed_data,
        _product,
    ),
}
"""Runtime to the causes, the first that holds is given."""
