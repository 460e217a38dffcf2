import pytest
from tests.measuring.quantized_files import OneLayer

from flyweight.measuring.onnxruntime_graph import INTEGER_KINDS, operators_in
from flyweight.runtimes.onnxruntime_backend import OnnxRuntime
from flyweight.runtimes.protocol import OpenSettings


def kinds(path):
    return {one.kind: one for one in OnnxRuntime().optimized(path, OpenSettings(), operators_in)}


def test_a_layer_on_integers(tmp_path):
    found = kinds(OneLayer().save(tmp_path / "a.onnx"))
    layer = found["QLinearConv"]
    assert layer.precision == "int8"
    assert "the_y" in layer.nodes  # without the number that a session appends
    assert "w_i" in layer.reads
    # Types that the file does not state follow from the operators.
    assert (found["Transpose"].precision, found["QuantizeLinear"].precision) == ("int8", "float32")
    assert (found["DequantizeLinear"].precision, found["Neg"].precision) == ("int8", "float32")


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_products_on_integers_that_return_float(tmp_path, kind):
    path = OneLayer(kind=kind, quantized_result=False).save(tmp_path / "a.onnx")
    found = kinds(path)
    integer = INTEGER_KINDS & found.keys()
    assert {found[name].precision for name in integer} == {"int8"}
    assert len(integer) == 1
    assert found["Neg"].precision == "float32"


def test_float_layers_in_blocks_of_channels(tmp_path):
    layer = OneLayer(quantized_input=False, quantized_weight=False, quantized_result=False, bias="")
    found = kinds(layer.save(tmp_path / "a.onnx"))
    assert (found["Conv"].precision, found["Conv"].nodes[0]) == ("float32", "y")
