import sys
import threading
from contextlib import redirect_stderr
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from flyweight.errors import ExportError
from flyweight.exporting import onnx_graph
from flyweight.exporting.inference_network import InferenceNetwork
from flyweight.exporting.model_card import ModelCard, from_properties

TARGET = Path("a.onnx")


def converted(model, **settings):
    settings = {"opset": 20, "dynamic_batch": False, **settings}
    inputs = (torch.rand(1, 3, 8, 8),)
    network = InferenceNetwork(model, None)
    return onnx_graph.convert(network, inputs, (("in",), ("out",)), target=TARGET, **settings)


@pytest.mark.parametrize(("dynamic", "rows"), [(False, 1), (True, "batch")])
def test_a_graph_has_the_wanted_names_and_shapes(dynamic, rows):
    proto = converted(nn.Conv2d(3, 4, 1), dynamic_batch=dynamic)
    assert onnx_graph.tensor_shapes(proto.graph.input) == {"in": [rows, 3, 8, 8]}
    assert onnx_graph.tensor_shapes(proto.graph.output) == {"out": [rows, 4, 8, 8]}
    assert onnx_graph.operator_counts(proto) == {"Conv": 1}


def test_a_finished_graph_has_its_card(tmp_path):
    proto = converted(nn.Conv2d(3, 4, 1))
    card = ModelCard(name="a", labels=("x",))
    onnx_graph.finish(proto, card, TARGET)
    properties = {item.key: item.value for item in proto.metadata_props}
    assert from_properties(properties, path=TARGET) == card
    onnx.save(proto, tmp_path / "a.onnx")
    onnx_graph.check_file(tmp_path / "a.onnx")


def test_weights_above_the_limit_of_one_file(monkeypatch):
    monkeypatch.setattr(onnx_graph, "_SINGLE_FILE_BYTES", 10)
    with pytest.raises(ExportError, match=r"less than 2 GB.*'a\.onnx'"):
        converted(nn.Conv2d(3, 4, 1))


def test_only_this_thread_is_silent(capsys):
    stream = onnx_graph._OtherThreads(sys.stderr)
    with redirect_stderr(stream):
        sys.stderr.write("here\n")
        other = threading.Thread(target=lambda: sys.stderr.write("there\n"))
        other.start()
        other.join()
    assert capsys.readouterr().err == "there\n"
