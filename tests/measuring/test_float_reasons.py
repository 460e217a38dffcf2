"""Every cause is shown by the runtime itself: a layer on integers, one thing changed, float."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.measuring.quantized_files import TYPES, OneLayer

from flyweight.measuring.census import census_of
from flyweight.measuring.file_layers import open_graph
from flyweight.measuring.float_reasons import CAUSES, UNKNOWN, WITHOUT_KERNEL, reason_for
from flyweight.measuring.onnxruntime_graph import operators_in
from flyweight.processors import processor_flags
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import RUNTIMES, runtime_by_name

ORT, OV = "onnxruntime", "openvino"
BOTH = (ORT, OV)
NOT_COMPUTED = "its result is not quantized before {} 'the_after0', which is not computed with it"
ANY_INPUT = "its input is not quantized: it is an input of the file"
WIDE = "its input has 16 bits, and integer kernels take 8"
AXIS = "its weight has scales along axis {}; scales of output channels lie along axis {}"
WEIGHT_ZERO = "its weight is {} with the zero point {}; it must be signed with 0"
WEIGHT = "its weight 'w' is not quantized"
READ = "its result is quantized, and also read by Tanh 'the_tanh'"

GOOD = {
    "convolution": OneLayer(),
    "one scale": OneLayer(weight_axis=None),
    "relu": OneLayer(after=("Relu",), zero=0),
    "signed relu": OneLayer(after=("Relu",), data="s8", zero=0, zero_after=-128),
    "clip": OneLayer(after=("Clip",), zero_after=0, step_after=5.99 / 255),
    "float bias": OneLayer(bias="float"),
    "no bias": OneLayer(bias=""),
    "signed": OneLayer(data="s8", zero=0),
    "gemm": OneLayer(kind="Gemm"),
    "float result of gemm": OneLayer(kind="Gemm", quantized_result=False),
    "gemm and hard-swish": OneLayer(kind="Gemm", after=("HardSwish",)),
    "matmul": OneLayer(kind="MatMul"),
    "float result of matmul": OneLayer(kind="MatMul", quantized_result=False),
}
BAD = {
    "input": (OneLayer(quantized_input=False), BOTH, ANY_INPUT),
    "weight": (OneLayer(quantized_weight=False), BOTH, WEIGHT),
    "16 bits": (OneLayer(data="u16", zero=9), BOTH, WIDE),
    "16 bits, signed": (OneLayer(data="s16", zero=0), BOTH, WIDE),
    "axis": (OneLayer(weight_axis=1), (OV,), AXIS.format(1, 0)),
    "result": (
        OneLayer(quantized_result=False),
        (ORT,),
        "its result is not quantized before Neg 'the_z', which is not computed with it",
    ),
    "sigmoid": (OneLayer(after=("Sigmoid",)), (ORT,), NOT_COMPUTED.format("Sigmoid")),
    "hard-swish": (OneLayer(after=("HardSwish",)), (ORT,), NOT_COMPUTED.format("HardSwish")),
    "leaky": (OneLayer(after=("LeakyRelu",)), (ORT,), NOT_COMPUTED.format("LeakyRelu")),
    "sum": (OneLayer(after=("Add",)), (ORT,), NOT_COMPUTED.format("Add")),
    "zero point after relu": (
        OneLayer(after=("Relu",), zero_after=3),
        (ORT,),
        "the zero point after Relu 'the_after0' is 3, and must be 0",
    ),
    "zero point after signed relu": (
        OneLayer(after=("Relu",), data="s8", zero=0),
        (ORT,),
        "the zero point after Relu 'the_after0' is 0, and must be -128",
    ),
    "range after clip": (
        OneLayer(after=("Clip",), zero_after=0, step_after=6.2 / 255),
        (ORT,),
        "the grid after Clip 'the_after0' reaches from 0 to 6.2, and must lie within 0 and 6",
    ),
    "bias of 8 bits": (OneLayer(bias="s8"), (ORT,), "its bias has 8 bits and must have 32"),
    "scale of the bias": (
        OneLayer(bias_factor=1.5),
        (ORT,),
        "the scale of its bias is not that of its input times that of its weight",
    ),
    "read twice": (
        OneLayer(read_twice=True),
        (ORT,),
        "its result is also read by Tanh 'the_tanh'",
    ),
    "scales of the input": (
        OneLayer(kind="Gemm", input_by_channel=True),
        (ORT,),
        "its input has 8 scales, one for each channel, and must have one",
    ),
    "signed weight": (OneLayer(weight_zero=3), (OV,), WEIGHT_ZERO.format("signed", 3)),
    "unsigned weight": (
        OneLayer(weight="u8", weight_zero=128),
        (OV,),
        WEIGHT_ZERO.format("unsigned", 128),
    ),
    "input of gemm": (OneLayer(kind="Gemm", quantized_input=False), BOTH, ANY_INPUT),
    "weight of gemm": (OneLayer(kind="Gemm", quantized_weight=False), BOTH, WEIGHT),
    "gemm of 16 bits": (OneLayer(kind="Gemm", data="u16", zero=9), BOTH, WIDE),
    "gemm read twice": (OneLayer(kind="Gemm", read_twice=True), (ORT,), READ),
    "bias of gemm": (
        OneLayer(kind="Gemm", bias="s8"),
        (ORT,),
        "its bias has 8 bits and must have 32",
    ),
    "axis of gemm": (OneLayer(kind="Gemm", weight_axis=1), (OV,), AXIS.format(1, 0)),
    "weight of matmul": (OneLayer(kind="MatMul", quantized_weight=False), BOTH, WEIGHT),
    "axis of matmul": (OneLayer(kind="MatMul", weight_axis=0), (OV,), AXIS.format(0, 1)),
    "matmul read twice": (OneLayer(kind="MatMul", read_twice=True), (ORT,), READ),
}


def layer_of(path, runtime):
    """Return the only layer of the census, taken in this process."""
    graph = open_graph(path)
    onnx.save(graph.model, path)
    operators = runtime_by_name(runtime).optimized(path, OpenSettings(), operators_in)
    (layer,) = census_of(graph, operators, runtime, {}).layers
    return layer


@pytest.mark.parametrize("runtime", BOTH)
@pytest.mark.parametrize("name", GOOD)
def test_layers_that_run_on_integers(name, runtime, tmp_path):
    layer = layer_of(GOOD[name].save(tmp_path / "a.onnx"), runtime)
    assert (layer.precision, layer.reason) == ("int8", "")


@pytest.mark.parametrize("runtime", BOTH)
@pytest.mark.parametrize("name", BAD)
def test_one_thing_changed(name, runtime, tmp_path):
    one, where, reason = BAD[name]
    layer = layer_of(one.save(tmp_path / "a.onnx"), runtime)
    expected = ("float32", reason) if runtime in where else ("int8", "")
    assert (layer.precision, layer.reason) == expected


def test_signed_inputs_with_a_zero_point(tmp_path):
    """Seen with OpenVINO 2026.4: on AMX in float, limited to AVX-512 or AVX2 on integers."""
    path = OneLayer(data="s8", zero=5).save(tmp_path / "a.onnx")
    assert layer_of(path, ORT).precision == "int8"
    layer = layer_of(path, OV)
    reason = (
        "its input is signed with the zero point 5; on a processor with AMX, a convolution runs on "
        "signed integers with 0 alone, or on unsigned ones"
    )
    with_tiles = "amx_int8" in (processor_flags() or ())
    expected = ("float32", reason) if with_tiles else ("int8", "")
    assert (layer.precision, layer.reason) == expected


def test_transposed_convolutions(tmp_path):
    path = OneLayer(kind="ConvTranspose").save(tmp_path / "a.onnx")
    no_kernel = "ONNX Runtime has no integer kernel for transposed convolutions"
    assert layer_of(path, ORT).reason == no_kernel
    path = OneLayer(kind="ConvTranspose").save(tmp_path / "a.onnx")
    reason = "its input has the zero point 128; a transposed convolution runs on integers with 0"
    assert layer_of(path, OV).reason == reason
    path = OneLayer(kind="ConvTranspose", zero=0).save(tmp_path / "a.onnx")
    assert layer_of(path, OV).precision == "int8"


SIZES = {"LSTM": (1, 32, 8), "GRU": (1, 24, 8), "RNN": (1, 8, 8), "Einsum": (8, 8)}
DEFORMABLE = (8, 8, 1, 1)


@pytest.mark.parametrize("kind", sorted(WITHOUT_KERNEL[ORT].keys() - {"ConvTranspose"}))
def test_operations_without_a_kernel(kind, tmp_path):
    """Everything around them is quantized, and ONNX Runtime still computes them in float."""
    sizes = SIZES.get(kind, DEFORMABLE)
    grid = [numpy_helper.from_array(np.float32(0.02), "s"), _integers("z", np.uint8(128))]
    stored = [*grid, _integers("wz", np.int8(0)), _integers("w_i", np.ones(sizes, np.int8))]
    inputs, attributes, shape = ["x_d", "w"], {}, [5, 1, 8]
    if kind in ("LSTM", "GRU", "RNN"):
        inputs, attributes = ["x_d", "w", "w"], {"hidden_size": 8}
    elif kind == "Einsum":
        attributes = {"equation": "abc,cd->abd"}
    else:
        shape = [1, 8, 4, 4]
        stored.append(numpy_helper.from_array(np.zeros((1, 2, 4, 4), np.float32), "offset"))
        inputs = ["x_d", "w", "offset"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "s", "z"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w_i", "s", "wz"], ["w"]),
        helper.make_node(kind, inputs, ["y"], **attributes),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "s", "z"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one operation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        stored,
    )
    opset = [helper.make_opsetid("", 21)]
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    layer = layer_of(path, ORT)
    assert (layer.kind, layer.precision) == (kind, "float32")
    assert layer.reason.startswith("ONNX Runtime has no integer kernel for ")


def _integers(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


PRODUCTS = [("u8", 0, "s8", 0, True), ("s8", 0, "s8", 0, True)]
PRODUCTS += [("u8", 0, "u8", 0, False), ("u8", 9, "s8", 0, False), ("u8", 0, "s8", 9, False)]


@pytest.mark.parametrize(("first", "zero", "second", "other", "integer"), PRODUCTS)
def test_products_of_computed_tensors(tmp_path, first, zero, second, other, integer):
    stored = [numpy_helper.from_array(np.float32(0.02), "s"), _integers("z", np.uint8(128))]
    stored += [_integers("za", np.asarray(zero, TYPES[first]))]
    stored += [_integers("zb", np.asarray(other, TYPES[second]))]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Neg", ["t"], ["n"]),
        helper.make_node("QuantizeLinear", ["x", "s", "za"], ["a_q"]),
        helper.make_node("DequantizeLinear", ["a_q", "s", "za"], ["a"]),
        helper.make_node("QuantizeLinear", ["n", "s", "zb"], ["b_q"]),
        helper.make_node("DequantizeLinear", ["b_q", "s", "zb"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "s", "z"], ["y_d"]),
        helper.make_node("Neg", ["y_d"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        stored,
    )
    path = tmp_path / "a.onnx"
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    for runtime in BOTH:
        layer = layer_of(path, runtime)
        expected = "int8" if integer or runtime == ORT else "float32"
        assert layer.precision == expected
        assert layer.reason.startswith("its factors have the zero points") == (expected != "int8")


def test_what_is_not_known_is_not_guessed(tmp_path):
    graph = open_graph(OneLayer().save(tmp_path / "a.onnx"))
    node = next(node for node in graph.nodes if node.op_type == "Conv")
    assert {reason_for(graph, node, runtime, "") for runtime in BOTH} == {UNKNOWN}


def test_every_runtime_has_causes():
    assert CAUSES.keys() == WITHOUT_KERNEL.keys() == RUNTIMES.keys()
