"""Every proven operation: fake quantization, ONNX Runtime and OpenVINO compute the same.

Each network is a convolution, the operation, and what follows in real networks; one file is run by
both runtimes. Differences of a level come from ties in rounding.
"""

import numpy as np
import onnxruntime
import pytest
import torch
from tests.quantization.conftest import trained_like
from torch import nn
from torchvision.ops import DeformConv2d, SqueezeExcitation

import flyweight as fw
from flyweight.quantization.network import plan_of

CHANNELS = 8


class Between(nn.Module):
    """A convolution, an operation, and a convolution."""

    def __init__(self, operation, made=CHANNELS):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS))
        self.operation = operation
        self.last = nn.Conv2d(made, 4, 1)

    def forward(self, images):
        return self.last(self.operation(self.first(images)))


class Both(nn.Module):
    """Two branches that a function joins."""

    def __init__(self, join):
        super().__init__()
        self.one, self.other = (
            nn.Conv2d(CHANNELS, CHANNELS, 1),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.join = join

    def forward(self, x):
        return self.join(self.one(x), torch.relu(self.other(x)))


class Scaled(nn.Module):
    """A product with a number."""

    def forward(self, x):
        return x * 1.5


class After(nn.Sequential):
    """A concatenation, operations on it, and a convolution."""

    def __init__(self, *operations):
        joined = Both(lambda one, other: torch.cat([one, other], 1))
        super().__init__(joined, *operations, nn.Conv2d(2 * CHANNELS, CHANNELS, 1))


class Attention(nn.Module):
    """Attention written out, over the positions of a small map."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.query, self.key, self.value = (nn.Linear(CHANNELS, CHANNELS) for _ in range(3))

    def forward(self, x):
        rows = self.norm(x.flatten(2).transpose(1, 2))
        weights = (self.query(rows) @ self.key(rows).transpose(1, 2) * 0.3).softmax(-1)
        return (weights @ self.value(rows)).transpose(1, 2).reshape(x.shape)


class OwnAttention(nn.Module):
    """PyTorch's layer of attention, over the positions of a small map."""

    def __init__(self, weights):
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
        self.weights = weights

    def forward(self, x):
        rows = x.flatten(2).transpose(1, 2)
        made = self.attention(rows, rows, rows, need_weights=self.weights)[0]
        return (rows + made).transpose(1, 2).reshape(x.shape)


class Deformed(nn.Module):
    """A deformable convolution with computed offsets."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(CHANNELS, 18, 3, padding=1)
        self.deform = DeformConv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x):
        return self.deform(x, self.offset(x) * 0.1)


class Pooled(nn.Module):
    """A classifier: global mean, a linear layer, and what turns its result into scores."""

    def __init__(self, end):
        super().__init__()
        self.pool, self.linear, self.end = nn.AdaptiveAvgPool2d(1), nn.Linear(CHANNELS, 8), end

    def forward(self, x):
        return self.end(self.linear(torch.flatten(self.pool(x), 1)))[:, :, None, None]


def convolution(**settings):
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, **settings), nn.ReLU())


OPERATIONS = {
    "relu": lambda: nn.ReLU(),
    "relu6": lambda: nn.ReLU6(),
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "hard-swish": lambda: nn.Hardswish(),
    "hard-sigmoid": lambda: nn.Hardsigmoid(),
    "silu": lambda: nn.SiLU(),
    "gelu": lambda: nn.GELU(),
    "sigmoid": lambda: nn.Sigmoid(),
    "add": lambda: Both(torch.add),
    "add and relu": lambda: Both(lambda one, other: torch.relu(one + other)),
    "multiply": lambda: Both(torch.mul),
    "concat": lambda: nn.Sequential(
        Both(lambda one, other: torch.cat([one, other], 1)), nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
    ),
    "concat, normalisation and relu": lambda: After(nn.BatchNorm2d(2 * CHANNELS), nn.ReLU()),
    "concat and relu": lambda: After(nn.ReLU()),
    "concat and scale": lambda: After(Scaled()),
    "upsample nearest": lambda: nn.Upsample(scale_factor=2),
    "upsample bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "squeeze and excitation": lambda: SqueezeExcitation(CHANNELS, 4),
    "squeeze and excitation, hard": lambda: SqueezeExcitation(
        CHANNELS, 4, scale_activation=nn.Hardsigmoid
    ),
    "depthwise": lambda: convolution(padding=1, groups=CHANNELS),
    "grouped": lambda: convolution(padding=1, groups=2),
    "dilated": lambda: convolution(padding=2, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2),
    "max pool": lambda: nn.MaxPool2d(2),
    "average pool": lambda: nn.AvgPool2d(2),
    "attention": lambda: Attention(),
    "attention of torch": lambda: OwnAttention(weights=True),
    "attention of torch, fused": lambda: OwnAttention(weights=False),
    "deformable": lambda: Deformed(),
}
HEADS = {
    "global pool and linear": lambda: Pooled(nn.Identity()),
    "sigmoid head": lambda: Pooled(nn.Sigmoid()),
    "softmax head": lambda: Pooled(nn.Softmax(1)),
}
NOT_READ = "deformable"
"""OpenVINO does not read this operation of operator set 19 and newer, quantized or not."""
FLOAT_LAYERS = {
    "transposed": "transposed",
    "deformable": "deformable",
    "attention of torch, fused": "one operation",
}
"""Operations with a weight that stays float, and a word of the reason in the plan."""


def network_of(name):
    torch.manual_seed(0)
    if name in OPERATIONS:
        return trained_like(Between(OPERATIONS[name]()))
    model = Between(HEADS[name]())
    model.last = nn.Identity()
    return trained_like(model)


@pytest.fixture(scope="module")
def images():
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def share_of_error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", [*OPERATIONS, *HEADS])
def test_three_computations_of_one_network_agree(tmp_path, images, name):
    openvino = pytest.importorskip("openvino")
    model = network_of(name)
    quantized = fw.quantize(model, images, fw.QuantConfig(weight_bits=7))
    floats = plan_of(quantized).floats
    assert all(FLOAT_LAYERS.get(name, "?") in reason for reason in floats.values())
    assert bool(floats) == (name in FLOAT_LAYERS)
    path = tmp_path / "net.onnx"
    fw.export(quantized, path, example=(images[:1],), compare_on=[(images[1:2],)])
    with torch.no_grad():
        dense, wanted = model(images[:1]), quantized(images[:1])
    assert share_of_error(wanted, dense) < 0.1
    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {session.get_inputs()[0].name: images[:1].numpy()})
    assert share_of_error(torch.from_numpy(found), wanted) < 0.02
    if name == NOT_READ:
        with pytest.raises(RuntimeError, match="DeformConv"):
            openvino.Core().read_model(path)
        return
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    other = np.asarray(compiled(images[:1].numpy())[0])
    assert share_of_error(torch.from_numpy(other), wanted) < 0.04
