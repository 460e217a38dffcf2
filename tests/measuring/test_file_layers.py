import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.measuring.quantized_files import OneLayer

from flyweight.errors import FileError
from flyweight.measuring.file_layers import FileGraph, followers, number_in, open_graph, weight_of


def graph_of(nodes, stored=(), returned=("z",), shape=(1, 4, 4)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in returned],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored],
    )
    return FileGraph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


WEIGHT = ("w", np.eye(4, dtype=np.float32))


def test_names_that_are_empty_or_used_twice():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="same"),
        helper.make_node("Relu", ["a"], ["b"], name="same"),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("MatMul", ["c", "c"], ["z"], name="own"),
    ]
    graph = graph_of(nodes, [WEIGHT])
    assert [(one.name, one.number) for one in graph.layers] == [("a", 0), ("c", 2), ("own", 3)]
    assert [number_in(node.name) for node in graph.nodes] == [(0,), (1,), (2,), (3,)]
    assert number_in("census_node_12_/WithoutBiases,census_node_3_") == (12, 3)
    assert graph.called(graph.nodes[2]) == "MatMul of 'c'"


def test_products_of_constants_are_no_layers():
    nodes = [
        helper.make_node("MatMul", ["w", "w"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["z"]),
    ]
    graph = graph_of(nodes, [WEIGHT])
    assert [one.name for one in graph.layers] == ["z"]
    assert graph.is_constant("v")
    assert not graph.is_constant("z")


def test_layers_of_inner_graphs():
    def branch(name):
        node = helper.make_node("MatMul", ["x", "w"], [f"{name}_z"], name=name)
        made = helper.make_tensor_value_info(f"{name}_z", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [made])

    branches = {"then_branch": branch("yes"), "else_branch": branch("no")}
    nodes = [helper.make_node("If", ["flag"], ["z"], **branches)]
    graph = graph_of(nodes, [WEIGHT, ("flag", np.array(True))])
    assert sorted(one.name for one in graph.layers) == ["no", "yes"]


def test_grids(tmp_path):
    graph = open_graph(OneLayer(data="u16", zero=7, weight_axis=1).save(tmp_path / "a.onnx"))
    (layer,) = graph.layers
    node = graph.nodes[layer.number]
    weight, data = graph.rounding(weight_of(node)), graph.rounding(node.input[0])
    assert (weight.bits, weight.signed, weight.axis, weight.scales.shape) == (8, True, 1, (8,))
    assert (data.bits, data.signed, int(data.zero_points)) == (16, False, 7)
    assert graph.rounding("x") is None
    assert graph.holds_integers
    kinds = [follower.op_type for follower in followers(graph, node)]
    assert kinds == ["QuantizeLinear", "DequantizeLinear", "Neg"]


def test_weights_beside_the_file(tmp_path):
    path = OneLayer().save(tmp_path / "a.onnx")
    settings = {"save_as_external_data": True, "location": "w", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **settings)
    assert open_graph(path).values("w_i").shape == (8, 8, 3, 3)
    (tmp_path / "w").unlink()
    with pytest.raises(FileError, match=r"a\.onnx' must be an ONNX file"):
        open_graph(path)


@pytest.mark.parametrize("content", [b"no graph", b"", None])
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=r"a\.onnx' must be an ONNX file of less than 2 GB"):
        open_graph(path)
