"""Small networks with the parts that quantization must place rightly."""

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn


def trained_like(model, size=16, channels=3):
    """Give batch normalisations statistics, and return the model in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, channels, size, size, generator=generator))
    return model.eval()


def block(inputs, outputs, activation, **settings):
    """Return convolution, batch normalisation and activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **settings),
        nn.BatchNorm2d(outputs),
        activation,
    )


def change_weight(model, layer):
    """Change the integers of the first output channel of a layer of an ONNX model, in place."""
    node = next(one for one in model.graph.node if one.name == layer)
    maker = next(one for one in model.graph.node if node.input[1] in one.output)
    weight = next(one for one in model.graph.initializer if one.name == maker.input[0])
    changed = numpy_helper.to_array(weight).copy()
    changed[0] = np.int8(20)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))


class Residual(nn.Module):
    """Two branches that are added, pooled and classified."""

    def __init__(self, activation=nn.ReLU6):
        super().__init__()
        self.stem = block(3, 8, activation())
        self.branch = block(8, 8, activation(), groups=8)
        self.narrow = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        x = self.stem(images)
        x = x + self.narrow(self.branch(x))
        x = nn.functional.max_pool2d(x, 2)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return trained_like(Residual())


@pytest.fixture
def images():
    return torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
