import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import flyweight as fw
from flyweight.exporting.float_layers import keep_float
from flyweight.measuring.census import take_census
from flyweight.quantization.network import plan_of


def stored(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def pair(name, source, made, grid="grid"):
    """Return the two nodes that round a tensor."""
    parts = [f"{grid}_scale", f"{grid}_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *parts], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *parts], [made]),
    ]


def model_of(middle, weight, *, round_result=True):
    """Return a file where a layer with float weights lies between rounded tensors."""
    nodes = [*pair("before", "images", "read"), *middle]
    end = "result"
    if round_result:
        nodes += pair("after", "result", "rounded")
        end = "rounded"
    values = [
        stored("grid_scale", np.float32(0.1)),
        stored("grid_zero", np.uint8(128)),
        stored("weight", weight),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4, 3, 3])
    inner = helper.make_tensor_value_info("read", TensorProto.FLOAT, [1, 4, 3, 3])
    made = helper.make_tensor_value_info(end, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [given], [made], values, value_info=[inner])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, images, *, optimised):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings)
    return session.run(None, {"images": images})[0]


def weight(*shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    # One step for the whole weight would lose the second channel.
    values[0] *= 100
    return values


CASES = {
    "Conv": ([helper.make_node("Conv", ["read", "weight"], ["result"])], weight(2, 4, 1, 1)),
    "grouped": (
        [helper.make_node("Conv", ["read", "weight"], ["result"], group=2)],
        weight(2, 2, 1, 1),
    ),
    "activation": (
        [
            helper.make_node("Conv", ["read", "weight"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["result"]),
        ],
        weight(2, 4, 1, 1),
    ),
    "ConvTranspose": (
        [helper.make_node("ConvTranspose", ["read", "weight"], ["result"], strides=[2, 2])],
        weight(4, 2, 2, 2),
    ),
    "Gemm": (
        [
            helper.make_node("Flatten", ["read"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight"], ["result"]),
        ],
        weight(36, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_computes_what_the_file_says(case):
    model = model_of(*CASES[case])
    images = np.random.default_rng(1).standard_normal((1, 4, 3, 3)).astype(np.float32)
    before = run(model, images, optimised=False)
    keep_float(model)
    np.testing.assert_array_equal(run(model, images, optimised=False), before)
    # At most one level, where the order of additions decides.
    np.testing.assert_allclose(run(model, images, optimised=True), before, rtol=0, atol=0.1001)
    read = [one for one in model.graph.node if one.op_type == "DequantizeLinear"][1]
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    assert values[read.input[1]].tolist() == [np.float32(0.1)] * 4


def test_a_layer_whose_result_stays_float_is_left_as_it_is():
    model = model_of(*CASES["Conv"], round_result=False)
    before = model.SerializeToString()
    keep_float(model)
    assert model.SerializeToString() == before


def test_a_skipped_layer_between_integer_layers_stays_float(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    images = torch.randn(4, 3, 8, 8)
    small = fw.quantize(model.eval(), images, fw.QuantConfig(skip=("1",), weight_bits=7))
    assert list(plan_of(small).floats) == ["1.conv2d"]
    result = fw.export(small, tmp_path / "net.onnx", example=(images[:1],))
    assert max(result.max_error.values()) < 0.03
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        census = take_census(tmp_path / "net.onnx", runtime=runtime)
        assert [one.precision for one in census.layers] == ["int8", "float32", "int8"]
