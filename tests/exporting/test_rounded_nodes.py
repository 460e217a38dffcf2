import onnx
import pytest
import torch
from tests.quantization.conftest import Residual, change_weight, trained_like

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
