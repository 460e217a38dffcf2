import onnx
import pytest
import torch
from tests.quantization.conftest import Residual, change_weight, trained_like
from torch import nn

import flyweight as fw
from flyweight.exporting.rounded_nodes import first_difference, paired
from flyweight.quantization.frozen import frozen
from flyweight.quantization.network import forward_of
from flyweight.quantization.rounded_tensors import rounded_tensors
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name


@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_the_first_layer_that_differs(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    config = fw.QuantConfig(exact=True, weight_bits=7)
    quantized = fw.quantize(trained_like(Residual()), images, config)
    fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    network = frozen(quantized).eval()
    tensors = rounded_tensors(forward_of(network), lambda: network(images[:1]))
    model = onnx.load(tmp_path / "net.onnx")
    assert sorted(paired(model.graph, tensors).values()) == list(range(len(tensors)))

    def difference():
        def opened(path):
            return runtime_by_name("onnxruntime").open(path, OpenSettings())

        return first_difference(model, tensors, {"images": images[:1].numpy()}, opened)

    assert difference() is None
    change_weight(model, "narrow.conv2d")
    assert difference() == "narrow.conv2d"


@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_a_padding_has_no_node_of_its_own(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)))
    model.append(nn.Conv2d(8, 4, 3, stride=2))
    images = torch.randn(8, 3, 16, 16)
    quantized = fw.quantize(model.eval(), images, fw.QuantConfig(weight_bits=7))
    fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    network = frozen(quantized).eval()
    tensors = rounded_tensors(forward_of(network), lambda: network(images[:1]))
    places = paired(onnx.load(tmp_path / "net.onnx").graph, tensors).values()
    assert [tensors[place].function for place in sorted(places)] == ["", "relu", "conv2d"]
    assert len(tensors) == 4
