import onnx
import torch
from torch import nn

import flyweight as fw
from flyweight.exporting.integer_gate import require_integer
from flyweight.measuring.census import take_census
from flyweight.quantization.network import plan_of

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM"}


class Net(nn.Module):
    """Layers used twice, without a module, folded, equal, and made of several operations."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.equal = nn.Conv2d(8, 8, 3, padding=1)
        self.equal.load_state_dict(self.twice.state_dict())
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.tokens = nn.Linear(8, 8)

    def forward(self, images):
        images = torch.relu(self.first(images))
        images = self.equal(self.twice(self.twice(images)))
        images = nn.functional.conv2d(self.up(images), self.twice.weight)
        tokens = self.tokens(images.flatten(2).transpose(1, 2))
        return tokens @ tokens.transpose(1, 2)


NAMES = [
    "first.0.conv2d",
    "twice.conv2d",
    "twice.conv2d#2",
    "equal.conv2d",
    "up.conv_transpose2d",
    "conv2d",
    "tokens.linear",
    "matmul",
]


def names_in(path):
    return [node.name for node in onnx.load(path).graph.node if node.op_type in LAYERS]


def test_layers_have_the_names_of_operations(tmp_path):
    torch.manual_seed(0)
    model, images = Net().eval(), torch.randn(1, 3, 12, 12)
    recorded = {operation.name for operation in fw.trace(model, (images,)).operations}
    assert set(NAMES) <= recorded
    fw.export(model, tmp_path / "a.onnx", example=(images,))
    assert names_in(tmp_path / "a.onnx") == NAMES

    quantized = fw.quantize(model, images)
    fw.export(quantized, tmp_path / "b.onnx", example=(images,))
    assert names_in(tmp_path / "b.onnx") == NAMES
    require_integer(take_census(tmp_path / "b.onnx"), plan_of(quantized))


def test_one_operation_that_becomes_several_layers(tmp_path):
    class Attention(nn.Module):
        def forward(self, tokens):
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    fw.export(Attention(), tmp_path / "a.onnx", example=(torch.randn(1, 2, 6, 8),))
    name = "scaled_dot_product_attention"
    assert names_in(tmp_path / "a.onnx") == [name, f"{name}/2"]


def test_other_ranks(tmp_path):
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    fw.export(model, tmp_path / "a.onnx", example=(torch.randn(1, 3, 6),))
    assert names_in(tmp_path / "a.onnx") == ["0.conv1d", "2.linear"]
