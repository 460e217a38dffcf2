import onnx
from onnx import TensorProto, helper

from flyweight.exporting.hygiene import leftovers, strip_traces


def graph_of(*nodes):
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")
    ]
    return helper.make_model(helper.make_graph(list(nodes), "g", value[:1], value[1:]))


def norm(source, target, **attributes):
    names = [source, "s", "b", "m", "v"]
    return helper.make_node("BatchNormalization", names, [target], name="bn", **attributes)


def conv(source, target):
    return helper.make_node("Conv", [source, "w"], [target], name="conv")


def test_a_normalisation_that_could_be_folded_is_named():
    found = leftovers(graph_of(conv("x", "h"), norm("h", "y")))
    assert found == ("unfolded BatchNormalization 'bn' after 'conv'",)


def test_a_normalisation_that_cannot_be_folded_is_allowed():
    assert leftovers(graph_of(norm("x", "y"))) == ()
    shared = helper.make_node("Relu", ["h"], ["z"])
    assert leftovers(graph_of(conv("x", "h"), shared, norm("h", "y"))) == ()


def test_weights_that_serve_twice_are_not_to_be_folded():
    nodes = conv("x", "h"), norm("h", "y"), conv("y", "i"), norm("i", "z")
    assert leftovers(graph_of(*nodes)) == ()


def test_training_is_named():
    dropout = helper.make_node("Dropout", ["x"], ["y"], name="drop")
    assert leftovers(graph_of(dropout)) == ("training operation Dropout 'drop'",)
    assert leftovers(graph_of(norm("x", "y", training_mode=1))) == (
        "training operation BatchNormalization 'bn'",
    )


def test_traces_are_stripped_from_branches_too():
    inner = conv("x", "y")
    inner.metadata_props.add(key="trace", value="/home/me/model.py")
    branch = graph_of(inner).graph
    outer = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    outer.doc_string = "/home/me/model.py"
    model = graph_of(outer)
    strip_traces(model)
    assert b"/home/me" not in onnx.ModelProto.SerializeToString(model)


def test_a_normalisation_after_something_else_is_allowed():
    between = helper.make_node("Relu", ["h"], ["i"], name="relu")
    assert leftovers(graph_of(conv("x", "h"), between, norm("i", "y"))) == ()
    empty = helper.make_node("RandomNormal", [], ["i"], name="random", shape=[1])
    assert leftovers(graph_of(empty, norm("i", "y"))) == ()


def test_a_normalisation_after_a_layer_with_computed_weights_is_allowed():
    weight = helper.make_node("Relu", ["v"], ["w"], name="weight")
    assert leftovers(graph_of(weight, conv("x", "h"), norm("h", "y"))) == ()


def test_a_normalisation_after_a_layer_that_is_an_output_is_allowed():
    model = graph_of(conv("x", "h"), norm("h", "y"))
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 3, 8, 8]))
    assert leftovers(model) == ()
