import numpy as np
import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration import observe
from flyweight.quantization.equalization import equalize_, equalized
from flyweight.quantization.placement import place
from flyweight.quantization.sites import record_sites


class Chain(nn.Module):
    """Convolution, activation, depthwise convolution; nothing else reads the activation."""

    def __init__(self, activation, *, norm=True, leak=False):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.activation = activation
        self.depthwise = nn.Conv2d(6, 12, 3, groups=6)
        self.leak = leak

    def forward(self, images):
        x = self.activation(self.norm(self.first(images)))
        return self.depthwise(x).mean() + x.sum() if self.leak else self.depthwise(x)


def found_in(model, images):
    batches = [Example((images,))]
    recorded = record_sites(model, Example((images[:1],)))
    plan = place(recorded)
    return equalized(recorded, plan, observe(model, plan, batches).channels)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()])
def test_scaled_channels_use_the_range_and_compute_the_same(images, activation, norm):
    torch.manual_seed(0)
    model = trained_like(Chain(activation, norm=norm))
    with torch.no_grad():
        rows = model.norm.weight if norm else model.first.weight
        rows[2] *= 0.02
    (found,) = found_in(model, images)
    assert found.factors.min() >= 1
    assert found.factors[2] > 5
    with torch.no_grad():
        wanted = model(images)
        equalize_(model, (found,))
        assert torch.allclose(model(images), wanted, atol=1e-5)
        largest = model.activation(model.norm(model.first(images))).amax((0, 2, 3))
    most = 4.8 if isinstance(activation, nn.ReLU6) else float(largest.max())
    reached = found.factors < 64
    assert np.allclose(largest.numpy()[reached & (found.factors > 1)], most, rtol=1e-4)


def test_a_tensor_that_something_else_reads_is_left_alone(images):
    torch.manual_seed(0)
    assert found_in(trained_like(Chain(nn.ReLU())), images)
    assert not found_in(trained_like(Chain(nn.ReLU(), leak=True)), images)
    assert not found_in(trained_like(Chain(nn.Hardswish())), images)
    # The residual sum reads the stem, too.
    assert not found_in(trained_like(Residual()), images)


def test_the_option_brings_the_network_nearer_to_the_float_one(images):
    torch.manual_seed(0)
    model = trained_like(Chain(nn.ReLU6()))
    with torch.no_grad():
        model.norm.weight[1:] *= 0.02
        model.depthwise.weight[2:] *= 50
        wanted = model(images)
        errors = [
            float((fw.quantize(model, images, config)(images) - wanted).norm())
            for config in (fw.QuantConfig(equalize=True), fw.QuantConfig())
        ]
    assert errors[0] < 0.7 * errors[1]
