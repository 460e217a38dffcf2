import pytest
from tests.measuring.quantized_files import OneLayer

from flyweight.measuring.times_by_layer import TimesByLayer, owners_of, time_layers
from flyweight.runtimes.protocol import OptimizedOperator
from flyweight.runtimes.runtime_table import RUNTIMES


def operator(name, kind, *reads):
    return OptimizedOperator(name, kind, "", (name,), reads, (name,))


def test_operators_belong_to_the_layer_before_and_conversions_to_the_integer_one():
    operators = [
        operator("to_integers", "QuantizeLinear", "images"),
        operator("first", "QLinearConv", "to_integers"),
        operator("to_float", "DequantizeLinear", "first"),
        operator("curve", "HardSwish", "to_float"),
        operator("again", "QuantizeLinear", "curve"),
        operator("second", "QLinearConv", "again"),
        operator("third", "QLinearConv", "first"),
        operator("sum", "QLinearAdd", "second", "third"),
        operator("apart", "Cast", "other_images"),
    ]
    layers = {"first": "one", "second": "two", "third": "three"}
    assert owners_of(operators, layers) == {
        "to_integers": "one",
        "first": "one",
        "to_float": "one",
        "curve": "one",
        "again": "two",
        "second": "two",
        "third": "three",
        "sum": "three",
    }


def times(layers, other):
    return TimesByLayer(layers, frozenset(), {}, other, {})


def test_the_least_of_two_measurements():
    least = times({"one": 1.0, "two": 4.0}, 0.5).least(times({"one": 2.0, "two": 3.0}, 0.25))
    assert least == times({"one": 1.0, "two": 3.0}, 0.25)
    assert least.total_ms == 4.25


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_is_timed_layer_by_layer(tmp_path, runtime):
    pytest.importorskip(runtime)
    path = OneLayer().save(tmp_path / "one.onnx")
    found = time_layers(path, {"the_y"}, runtime=runtime, seconds=0.01)
    assert list(found.layers_ms) == ["the_y"]
    assert found.integer == {"the_y"}
    assert found.layers_ms["the_y"] > 0
    assert found.other_ms == 0
    assert runtime in found.versions
    path = OneLayer(quantized_input=False).save(tmp_path / "float.onnx")
    found = time_layers(path, {"the_y", "of another file"}, runtime=runtime, seconds=0.01)
    assert found.integer == frozenset()
    assert list(found.reasons) == ["the_y"]
    # A layer that is not asked for is an operator between layers.
    assert time_layers(path, set(), runtime=runtime, seconds=0.01).other_ms > 0
