import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import ExportError
from flyweight.exporting.onnx import OnnxConfig

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]
OPENVINO = OnnxConfig(runtime="openvino")


def images():
    return 3 * torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def exact(build, **options):
    torch.manual_seed(0)
    config = fw.QuantConfig(exact=True, weight_bits=7, **options)
    return fw.quantize(trained_like(build()), images(), config)


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.LeakyReLU])
def test_a_sum_that_openvino_rounds_once_is_named(tmp_path, activation):
    pytest.importorskip("openvino")
    target, build = tmp_path / "net.onnx", lambda: Residual(activation)
    given = {"example": (images()[:1],), "compare_on": [(one[None],) for one in images()]}
    with pytest.raises(
        ExportError,
        match=r"bits of PyTorch in OpenVINO.* output_0, first after the layer 'add'\. Nothing was "
        r"written; quantize for the runtime 'openvino'",
    ):
        fw.export(exact(build), target, **given, config=OPENVINO)
    assert not target.exists()
    result = fw.export(exact(build, runtime="openvino"), target, **given, config=OPENVINO)
    assert result.max_error == {"output_0": 0}


class FloatEnd(nn.Module):
    """A convolution and a function that no runtime computes to the last bit."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, batch):
        return torch.exp(self.layer(batch)).sum((2, 3)).sin()


def test_outputs_of_float_operations_are_named(tmp_path):
    with pytest.raises(ExportError, match=r"of output_0, at these outputs\..*without exact"):
        fw.export(exact(FloatEnd), tmp_path / "net.onnx", example=(images()[:1],))


def test_networks_that_are_not_exact_may_differ(tmp_path):
    torch.manual_seed(0)
    quantized = fw.quantize(trained_like(Residual()), images(), fw.QuantConfig(weight_bits=7))
    assert fw.export(quantized, tmp_path / "net.onnx", example=(images()[:1],)).size_bytes
