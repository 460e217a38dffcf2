import copy

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.layer_losses import (
    divergence,
    layer_losses,
    most_sensitive,
    relative_squared_error,
    sensitive_layers,
)
from flyweight.quantization.network import plan_of


def rounded(values, grid):
    levels = (torch.round(values / grid.scale) + grid.zero_point).clamp(0, 255)
    return (levels - grid.zero_point) * grid.scale


def alone(model, plan, operation):
    """Return a network with one quantized layer, folded and rounded by hand."""
    (layer,) = (one for one in plan.layers.values() if one.operation == operation)
    twin = copy.deepcopy(model)
    path = operation.rpartition(".")[0]
    conv = twin.get_submodule(path)
    weight = conv.weight.detach()
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    if layer.norm is not None:
        block = twin.get_submodule(path.rpartition(".")[0])
        norm, block[1] = block[1], nn.Identity()
        factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        weight = weight * factor[:, None, None, None]
        bias = (bias - norm.running_mean) * factor + norm.bias.detach()
    source = plan.grids[layer.source]
    scales = weight.flatten(1).abs().amax(1) / 127
    shape = (-1, *[1] * (weight.ndim - 1))
    conv.weight = nn.Parameter(torch.round(weight / scales.view(shape)) * scales.view(shape))
    steps = scales * source.scale
    conv.bias = nn.Parameter(torch.round(bias / steps) * steps)
    conv.register_forward_pre_hook(lambda module, args: (rounded(args[0], source),))
    end = twin.get_submodule(layer.result.rpartition(".")[0])
    end.register_forward_hook(lambda m, args, made: rounded(made, plan.grids[layer.result]))
    return twin


OPERATIONS = ["stem.0.conv2d", "branch.0.conv2d", "narrow.conv2d", "head.linear"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_loss_is_that_of_a_network_with_one_quantized_layer(residual, images, operation):
    quantized = fw.quantize(residual, images, fw.QuantConfig(correct_bias=False))
    plan = plan_of(quantized)
    found = layer_losses(residual, quantized, [images])
    assert set(found) == set(OPERATIONS)
    with torch.no_grad():
        wanted, made = residual(images), alone(residual, plan, operation)(images)
    error = float((wanted - made).square().sum() / wanted.square().sum())
    assert error > 0
    # The hand rounds by division, where ties may fall to the other side.
    assert found[operation] == pytest.approx(error, rel=0.02)


def test_a_layer_with_a_coarse_grid_costs_most(residual, images):
    with torch.no_grad():
        residual.narrow.weight[:, 0] *= 100
        residual.narrow.weight[:, 1:] *= 0.5
    quantized = fw.quantize(residual, images)
    for loss in (relative_squared_error, divergence):
        losses = layer_losses(residual, quantized, images, loss)
        assert all(value > 0 for value in losses.values())
        assert most_sensitive(losses, 4)[0] == max(losses, key=losses.get)


def test_sensitive_layers_are_the_fewest_with_the_wanted_share_of_the_losses():
    losses = {"a": 0.1, "b": 0.6, "c": 0.3, "d": 0.0}
    assert sensitive_layers(losses, 0.6) == ("b",)
    assert sensitive_layers(losses, 0.8) == ("b", "c")
    assert sensitive_layers({"a": 0.0, "b": 0.0}) == ()
    for share in (0, 1.5):
        with pytest.raises(PlanError, match="at most 1"):
            sensitive_layers(losses, share)


def test_a_loss_with_labels_receives_the_number_of_the_batch(residual, images):
    quantized = fw.quantize(residual, images)
    labels = [torch.arange(6) % 4, torch.arange(6) % 3]
    numbers = []

    def loss(batch, dense, outputs):
        numbers.append(batch)
        entropy = nn.functional.cross_entropy
        return float(entropy(outputs, labels[batch]) - entropy(dense, labels[batch]))

    losses = layer_losses(residual, quantized, images.split(6), loss)
    assert numbers == [0] * len(losses) + [1] * len(losses)
    assert any(losses.values())


def test_mistakes_are_named(residual, images):
    quantized = fw.quantize(residual, images)
    with pytest.raises(PlanError, match="Received none"):
        layer_losses(residual, quantized, [])
    with pytest.raises(PlanError, match="float Residual"):
        layer_losses(residual, residual, images)
    with pytest.raises(PlanError, match="0 or more"):
        most_sensitive({}, -1)

    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            y[:, :1].mul_(2)
            return y

    model = Writing().eval()
    with pytest.raises(PlanError, match="executable in parts"):
        layer_losses(model, fw.quantize(model, images), images)
