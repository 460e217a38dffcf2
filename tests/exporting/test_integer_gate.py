from dataclasses import replace

import pytest

from flyweight.errors import ExportError, PlanError
from flyweight.exporting.integer_gate import require_integer
from flyweight.measuring.census import Census, LayerCensus
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan

PLAN = QuantizationPlan(
    layers={
        "a|conv2d|1": IntegerLayer("a.conv2d", "a.weight", None, "args[0]", "a.conv2d"),
        "b|linear|1": IntegerLayer("b.linear", "b.weight", None, "a.conv2d", "b.linear"),
    },
    norms=(),
    outputs={"a|conv2d|1": "a.conv2d", "|matmul|1": "matmul"},
    inputs={},
    limits={},
    floats={"c.conv_transpose2d": "it has no kernel"},
)
LAYERS = (
    LayerCensus("a.conv2d", "Conv", "int8", ""),
    LayerCensus("b.linear", "Gemm", "int8", ""),
    LayerCensus("matmul", "MatMul", "float32", "some"),
    LayerCensus("c.conv_transpose2d", "ConvTranspose", "float32", "no kernel"),
)


def census(*changed):
    new = {layer.name: layer for layer in changed}
    return Census("openvino", tuple(new.get(layer.name, layer) for layer in LAYERS))


def test_layers_that_the_plan_leaves_in_float_may_be_float():
    require_integer(census(), PLAN)


@pytest.mark.parametrize("precision", ["float32", "bf16", "unknown"])
def test_a_layer_that_is_not_integer(precision):
    left = LayerCensus("b.linear", "Gemm", precision, "its input is not quantized")
    with pytest.raises(ExportError, match=r"OpenVINO must .* 1 float layer: 'b\.linear' \(its in"):
        require_integer(census(left), PLAN)


def test_many_layers_are_named_in_one_line():
    layers = {f"l{n}": IntegerLayer(f"l{n}", "w", None, "x", "y") for n in range(8)}
    float_ones = tuple(LayerCensus(name, "Conv", "float32", "r") for name in layers)
    with pytest.raises(ExportError, match=r"8 float layers: 'l0' \(r\), .*'l4' \(r\) and 3 more"):
        require_integer(Census("onnxruntime", float_ones), replace(PLAN, layers=layers))


def test_a_layer_that_the_exporter_dropped():
    require_integer(Census("onnxruntime", LAYERS[1:]), PLAN)


def test_the_census_of_another_file():
    other = (*LAYERS[1:], LayerCensus("node_1", "Conv", "int8", ""))
    with pytest.raises(PlanError, match=r"plan with 'a\.conv2d' and a file with 'node_1'"):
        require_integer(Census("onnxruntime", other), PLAN)
