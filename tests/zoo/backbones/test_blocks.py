import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flyweight.zoo.backbones.blocks import (
    ConvNormActivation,
    freeze_norms,
    initialise_convolutions,
    scaled,
)


@given(st.integers(1, 2048), st.floats(0.05, 4))
def test_scaled_widths_are_multiples_of_eight_near_the_product(channels, width):
    rounded = scaled(channels, width)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert rounded >= 0.9 * channels * width
    assert rounded <= max(8, channels * width + 12)


def test_width_one_changes_no_multiple_of_eight():
    assert [scaled(channels, 1.0) for channels in (32, 64, 256, 1024)] == [32, 64, 256, 1024]


def test_layer_is_convolution_then_norm_then_activation():
    layer = ConvNormActivation(4, 8, 3, stride=2, groups=4, activation=nn.LeakyReLU(0.1)).eval()
    images = torch.randn(2, 4, 8, 8)
    expected = nn.functional.leaky_relu(
        layer.bn(nn.functional.conv2d(images, layer.conv.weight, stride=2, padding=1, groups=4)),
        0.1,
    )
    assert torch.equal(layer(images), expected)
    assert layer.conv.bias is None


def test_initialisation_keeps_the_scale_of_depthwise_outputs():
    torch.manual_seed(0)
    convolution = nn.Conv2d(512, 512, 3, groups=512)
    initialise_convolutions(convolution)
    assert abs(convolution.weight.std().item() - (2 / 9) ** 0.5) < 0.02
    assert not convolution.bias.any()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_frozen_norms_compute_the_same_and_never_change(device):
    torch.manual_seed(0)
    with torch.device(device):
        model = nn.Sequential(ConvNormActivation(3, 4, 3), ConvNormActivation(4, 4, 1))
        model[1].bn.running_var.uniform_(0.5, 2)
        model[1].bn.running_mean.normal_()
        images = torch.randn(2, 3, 5, 5)
    expected = model.eval()(images)
    freeze_norms(model)
    found = model.train()(images)
    assert found.device.type == device
    assert {name for name, _ in model.named_parameters()} == {"0.conv.weight", "1.conv.weight"}
    if device == "cpu":
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(model.eval()(images), expected)
