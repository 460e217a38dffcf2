import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import ExportError
from flyweight.exporting.integer_graph import fold_integers

SAFE = fw.QuantConfig(weight_bits=7)
"""The same results on every processor."""


@pytest.fixture(scope="module")
def images():
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def optimised(path, tmp_path):
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), settings)
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    return collections.Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.LeakyReLU])
def test_the_file_holds_integers_and_runs_on_them(tmp_path, images, activation):
    torch.manual_seed(0)
    quantized = fw.quantize(trained_like(Residual(activation)), images, SAFE)
    path = tmp_path / "net.onnx"
    result = fw.export(quantized, path, example=(images[:1],), compare_on=[(images[1:2],)])
    assert max(result.max_error.values()) < 0.03
    graph = onnx.load(path).graph
    types = {item.data_type for item in graph.initializer if len(item.dims) > 1}
    assert types <= {onnx.TensorProto.INT8, onnx.TensorProto.INT64}
    found = optimised(path, tmp_path)
    assert found["QLinearConv"] == 3
    assert found["QLinearAdd"] == 1
    assert found["QGemm"] == 1
    assert found["Conv"] == found["FusedConv"] == found["Relu"] == found["Clip"] == 0


def test_openvino_runs_the_same_file_on_integers(tmp_path, images):
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    quantized = fw.quantize(trained_like(Residual()), images, SAFE)
    fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "net.onnx", "CPU", settings)
    with torch.no_grad():
        wanted = quantized(images[:1])
    found = torch.from_numpy(compiled(images[:1].numpy())[0])
    assert (found - wanted).norm() < 0.03 * wanted.norm()
    layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    kinds = collections.Counter(
        (str(info["layerType"].value), str(info["runtimePrecision"].value)) for info in layers
    )
    assert kinds["Convolution", "u8"] == 3


def test_a_float_graph_is_left_alone(tmp_path):
    network = nn.Conv2d(3, 4, 1)
    fw.export(network, tmp_path / "net.onnx", example=(torch.rand(1, 3, 4, 4),))
    proto = onnx.load(tmp_path / "net.onnx")
    before = proto.SerializeToString()
    fold_integers(proto)
    assert proto.SerializeToString() == before


def test_a_quantized_file_holds_no_zeros_and_no_shapes_of_inner_tensors(tmp_path, images):
    torch.manual_seed(0)
    model = trained_like(Residual())
    fw.export(fw.quantize(model, images, SAFE), tmp_path / "net.onnx", example=(images[:1],))
    graph = onnx.load(tmp_path / "net.onnx").graph
    nodes = [node for node in graph.node if node.output[0].endswith("_bias")]
    assert len(nodes) == 4
    assert [len(node.input) for node in nodes] == [2] * 4
    assert not graph.value_info
    fw.export(model, tmp_path / "float.onnx", example=(images[:1],))
    assert onnx.load(tmp_path / "float.onnx").graph.value_info


def test_a_bias_off_its_steps_is_refused(tmp_path, images):
    torch.manual_seed(0)
    quantized = fw.quantize(trained_like(Residual()), images, SAFE)
    fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    proto = onnx.load(tmp_path / "net.onnx")
    for node in list(proto.graph.node):
        if node.op_type == "DequantizeLinear" and node.output[0].endswith("_bias"):
            for layer in proto.graph.node:
                layer.input[:] = ["moved" if n == node.output[0] else n for n in layer.input]
            break
    values = np.full(8, 0.123, np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(values, "moved"))
    with pytest.raises(ExportError, match="must be rounded to its steps"):
        fold_integers(proto)


@pytest.mark.parametrize(("bits", "notes"), [(8, 1), (7, 0)])
def test_a_note_where_the_processor_clips(images, tmp_path, monkeypatch, bits, notes):
    home = "flyweight.exporting.onnx"
    monkeypatch.setattr(f"{home}.processor_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(f"{home}.platform.machine", lambda: "x86_64")
    model = trained_like(Residual())
    quantized = fw.quantize(model, images, fw.QuantConfig(weight_bits=bits))
    result = fw.export(quantized, tmp_path / "a.onnx", example=(images[:1],))
    assert len(result.notes) == notes
    assert fw.export(model, tmp_path / "b.onnx", example=(images[:1],)).notes == ()


class Padded(nn.Module):
    """A convolution, and a second one whose input is padded before it."""

    def __init__(self, pads, value=0.0, mode="constant", *, shared=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
        self.last = nn.Conv2d(8, 4, 3, stride=2, padding=(1, 0))
        self.pads, self.settings, self.shared = pads, (mode, value), shared

    def forward(self, images):
        x = self.first(images)
        padded = nn.functional.pad(x, self.pads, *self.settings)
        return self.last(padded) + (padded.mean() if self.shared else 0)


def paddings(model, images, folder):
    path = folder / "padded.onnx"
    small = fw.quantize(model.eval(), images, SAFE)
    result = fw.export(small, path, example=(images[:1],), compare_on=[(images[1:2],)])
    assert max(result.max_error.values()) < 0.03
    return [node.op_type for node in onnx.load(path).graph.node].count("Pad"), path


@pytest.mark.parametrize("pads", [(0, 1, 0, 1), (2, 0, 0, 0), (1, 2, 3, 4)])
def test_zeros_before_a_convolution_are_a_setting_of_it(tmp_path, images, pads):
    count, path = paddings(Padded(pads), images, tmp_path)
    assert count == 0
    assert optimised(path, tmp_path)["QLinearConv"] == 2
    assert optimised(path, tmp_path)["Pad"] == 0


def test_zeros_around_images_are_a_setting_of_the_first_convolution(tmp_path, images):
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2))
    assert paddings(model, images, tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("pads", "settings"),
    [
        ((0, 1, 0, 1), {"value": 0.5}),
        ((0, 1, 0, 1), {"mode": "reflect"}),
        ((0, -1, 0, 1), {}),
        ((0, 1, 0, 1), {"shared": True}),
    ],
)
def test_other_paddings_stay(tmp_path, images, pads, settings):
    assert paddings(Padded(pads, **settings), images, tmp_path)[0] == 1
