"""ONNX files of single layers side by side, for timing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.graph.cost import Geometry
from flyweight.measuring.timed_layers import Widths, weight_shape

_OPSET = 20


def save_layers(path: Path, geometry: Geometry, points: Sequence[Widths]) -> None:
    """Write one ONNX file with a layer `layer0`, `layer1`, ... for each pair of widths."""
    generator = np.random.default_rng(0)
    nodes, weights, results, inputs = [], [], [], {}
    for place, (in_channels, out_channels) in enumerate(points):
        source, name = f"channels{in_channels}", f"layer{place}"
        shape = (geometry.images, in_channels, *geometry.size)
        inputs[source] = helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)
        shapes = (weight_shape(geometry, (in_channels, out_channels)), (out_channels,))
        for suffix, wanted in zip(("weight", "bias"), shapes, strict=True):
            values = generator.standard_normal(wanted, dtype=np.float32)
            weights.append(numpy_helper.from_array(values, f"{name}.{suffix}"))
        kind, attributes = _operator(geometry, in_channels)
        names = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "layers", list(inputs.values()), results, weights)
    opset = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def _operator(geometry: Geometry, in_channels: int) -> tuple[str, dict[str, Any]]:
    if geometry.kind == "linear":
        return "Gemm", {"transB": 1}
    attributes: dict[str, Any] = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.stride,
        "pads": [*geometry.padding, *geometry.padding],
        "dilations": geometry.dilation,
        "group": geometry.groups or in_channels,
    }
    if geometry.kind == "convolution":
        return "Conv", attributes
    return "ConvTranspose", {**attributes, "output_padding": geometry.output_padding}
