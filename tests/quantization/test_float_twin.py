import pytest
import torch
from tests.quantization.conftest import trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.float_twin import float_twin, scaled_layer
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.network import forward_of

EQUALIZED = fw.QuantConfig(equalize=True, correct_bias=False)


@pytest.fixture
def chain():
    """Channels of unequal size before a depthwise convolution, which `equalize` scales."""
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU6()]
    model = trained_like(nn.Sequential(*parts, nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.02, 0.05, 0.1, 0.5, 1.0, 1.0]))
    return model


def test_only_scaled_layers_differ_by_more_than_rounding(chain, images):
    plain, scaled = fw.quantize(chain, images), fw.quantize(chain, images, EQUALIZED)
    assert scaled_layer(chain, forward_of(plain)) is None
    assert scaled_layer(chain, forward_of(scaled)) == "0.conv2d"


def test_a_twin_computes_what_the_float_network_does(chain, images):
    scaled, before = fw.quantize(chain, images, EQUALIZED), chain[1].weight.clone()
    twin = float_twin(chain, forward_of(scaled))
    assert torch.equal(chain[1].weight, before)
    assert scaled_layer(twin, forward_of(scaled)) is None
    with torch.no_grad():
        assert torch.allclose(twin(images), chain(images), atol=1e-5)


def test_losses_of_scaled_layers_are_those_of_rounding(chain, images):
    plain = layer_losses(chain, fw.quantize(chain, images), images)
    scaled = layer_losses(chain, fw.quantize(chain, images, EQUALIZED), images)
    # A better grid for what the depthwise layer reads; the rest is as before.
    assert scaled["3.conv2d"] < plain["3.conv2d"]
    assert sum(scaled.values()) < 1.5 * sum(plain.values())


def test_means_of_scaled_layers_are_corrected_by_those_of_the_twin(chain, images):
    with torch.no_grad():
        wanted = chain(images)
        errors = [
            float((fw.quantize(chain, images, config)(images) - wanted).square().mean())
            for config in (
                EQUALIZED,
                fw.QuantConfig(equalize=True),
                fw.QuantConfig(exact=True, correct_bias=False),
                fw.QuantConfig(exact=True),
            )
        ]
    assert errors[1] < 1.1 * errors[0]
    assert errors[3] < 1.1 * errors[2]


def test_a_relu6_that_runs_as_a_relu_is_not_compared(chain, images):
    with pytest.raises(PlanError, match=r"ReLU6 '2' runs as a scaled ReLU.*without exact"):
        layer_losses(chain, fw.quantize(chain, images, fw.QuantConfig(exact=True)), images)
