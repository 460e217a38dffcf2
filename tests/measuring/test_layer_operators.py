from dataclasses import replace

import pytest
from tests.measuring.quantized_files import OneLayer

from flyweight.measuring.file_layers import open_graph
from flyweight.measuring.layer_operators import operators_of
from flyweight.runtimes.protocol import OptimizedOperator


@pytest.fixture
def graph(tmp_path):
    return open_graph(OneLayer().save(tmp_path / "a.onnx"))


def found_by(graph, *operators):
    return {layer.name: one.name for layer, one in operators_of(graph, operators).items()}


def test_an_operator_keeps_the_name_the_weight_or_the_name_of_what_follows(graph):
    (layer,) = graph.layers
    plain = OptimizedOperator("op", "Conv", "float32", (), (), ("made",))
    node = graph.nodes[layer.number]
    after = graph.takers[node.output[0]][0]
    named = replace(plain, nodes=(f"{node.name}/WithoutBiases",))
    assert found_by(graph, named) == {"the_y": "op"}
    assert found_by(graph, replace(plain, reads=("w",))) == {}  # Computed; only stored ones count.
    assert found_by(graph, replace(plain, nodes=(after.name,))) == {"the_y": "op"}
    assert found_by(graph, replace(plain, nodes=("z",))) == {"the_y": "op"}
    assert found_by(graph, replace(plain, nodes=("x",))) == {}
    assert found_by(graph, replace(named, kind="Relu")) == {}
    assert found_by(graph, replace(plain, nodes=("z",)), replace(named, name="direct")) == {
        "the_y": "direct"
    }


def test_the_weight(tmp_path):
    graph = open_graph(OneLayer(quantized_weight=False).save(tmp_path / "a.onnx"))
    by_weight = OptimizedOperator("op", "Conv", "float32", (), ("w",), ())
    assert found_by(graph, by_weight) == {"the_y": "op"}
