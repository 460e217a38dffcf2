import onnx
import onnxruntime
import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import ExportError
from flyweight.exporting.inference_network import InferenceNetwork
from flyweight.exporting.onnx import to_onnx

SAFE = fw.QuantConfig(weight_bits=7)

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


class Doubled(nn.Module):
    """What is appended; a file may get it wrong."""

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong = wrong

    def forward(self, scores):
        if torch.compiler.is_exporting():
            return (2 * scores + self.wrong,)
        return (2 * scores,)


@pytest.fixture(scope="module")
def images():
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def quantized(images):
    torch.manual_seed(0)
    return fw.quantize(trained_like(Residual()), images, SAFE)


def test_what_is_appended_is_compared_exactly_and_leaves_one_output(tmp_path, quantized, images):
    path = tmp_path / "net.onnx"
    found = to_onnx(quantized, path, example=(images[:1],), postprocess=Doubled())
    assert found.max_error["output_0"] < 1e-6
    assert found.max_error["network_output_0"] < 0.05
    assert [item.name for item in onnx.load(path).graph.output] == ["output_0"]
    session = onnxruntime.InferenceSession(path)
    made = torch.from_numpy(session.run(None, {"images": images[:1].numpy()})[0])
    with torch.no_grad():
        wanted = 2 * quantized(images[:1])
    assert (made - wanted).norm() < 0.05 * wanted.norm()


def test_a_fault_in_what_is_appended_is_refused(tmp_path, quantized, images):
    path = tmp_path / "net.onnx"
    with pytest.raises(ExportError, match=r"'output_0' of .* must agree .* within 0\.001"):
        to_onnx(quantized, path, example=(images[:1],), postprocess=Doubled(wrong=0.1))
    assert not path.exists()


def test_only_quantized_networks_have_two_parts(quantized):
    assert InferenceNetwork(quantized, Doubled()).in_two_parts
    assert not InferenceNetwork(quantized, None).in_two_parts
    assert not InferenceNetwork(nn.Conv2d(3, 4, 3), Doubled()).in_two_parts
