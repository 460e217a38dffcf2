import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.quantization.calibration import ChannelMoments
from flyweight.quantization.dead_channels import dead_channels, hold_constant_
from flyweight.quantization.grids import Grid
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import (
    FoldedNorm,
    IntegerLayer,
    QuantizationPlan,
)


def deadened(residual, images):
    """Make a channel constant, halfway between two levels, and let the next layer amplify it."""
    stem, branch = residual.stem[1], residual.branch
    with torch.no_grad():
        stem.weight[2] = 1e-5
        stem.bias[2] = float(residual.stem(images).max()) / 255 / 2
        branch[0].weight[2] = 0
        branch[0].weight[2, 0, 1, 1] = 0.5
        branch[1].running_var[2] = 0
        branch[1].running_mean[2] = branch[0](residual.stem(images))[:, 2].mean()
    return residual


def planned(source, result, bits=8):
    layer = IntegerLayer("conv2d", "weight", "bias", "input", "relu")
    grids = {"input": Grid(source, 0), "relu": Grid(result, 0)}
    return QuantizationPlan(
        {"|conv2d|1": layer},
        (),
        {"|relu|1": "relu"},
        {"args[0]": "input"},
        {},
        grids,
        weight_bits=bits,
    )


def moments(weight, values):
    found = ChannelMoments(torch.tensor(weight)[:, None])
    found.observe(torch.tensor(values), 1)
    return {"conv2d": found}


def test_the_rule_needs_a_large_weight_and_a_constant_channel():
    # One step of the sums is 0.1 * weight / 127; a level of the result is 0.01.
    values = [[1.0, 1.0, 1.0], [1.005, 1.2, 1.005]]
    found = dead_channels(planned(0.1, 0.01), moments([4.0, 4.0, 2.0], values))
    assert found == {"conv2d": {0: pytest.approx(1.0025, abs=1e-6)}}
    assert (
        dead_channels(planned(0.1, 0.01, 7), moments([4.0, 4.0, 2.0], values)).keys()
        == found.keys()
    )
    assert dead_channels(planned(0.1, 0.02), moments([4.0, 4.0, 2.0], values)) == {}


def test_a_dead_channel_is_constant_in_the_copy_and_named_in_the_plan(residual, images):
    model = deadened(residual, images)
    before = model.branch[0].weight.clone()
    quantized = fw.quantize(model, images)
    assert plan_of(quantized).constant == {"branch.0.conv2d": (2,)}
    level = plan_of(quantized).grids["branch.2.hardtanh"].scale
    assert torch.equal(model.branch[0].weight, before)
    assert not quantized.branch[0].weight[2].any()
    seen = []
    quantized.narrow.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        quantized(images)
        wanted = model.branch(model.stem(images))[:, 2]
    assert seen[0][:, 2].unique().numel() == 1
    assert (seen[0][:, 2] - wanted.mean()).abs().max() <= level
    kept = fw.quantize(model, images, fw.QuantConfig(fix_dead_channels=False))
    assert plan_of(kept).constant == {}
    assert torch.equal(kept.branch[0].weight, before)


def test_the_rule_brings_the_network_nearer_to_the_float_one(residual, images):
    model = deadened(residual, images)
    configs = [fw.QuantConfig(fix_dead_channels=fix, correct_bias=False) for fix in (True, False)]
    with torch.no_grad():
        wanted = model(images)
        errors = [(fw.quantize(model, images, one)(images) - wanted).norm() for one in configs]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("shift", ["norm.bias", None])
def test_constants_with_and_without_what_a_normalisation_adds(shift):
    model = nn.Module()
    model.conv, model.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=shift is not None)
    model.norm.running_var.fill_(4)
    norm = FoldedNorm("norm.running_mean", "norm.running_var", shift and "norm.weight", shift, 1e-5)
    layer = IntegerLayer("conv.conv2d", "conv.weight", "conv.bias", "x", "y", norm)
    plan = QuantizationPlan({"conv|conv2d|1": layer}, (), {}, {}, {})
    images = torch.randn(2, 2, 4, 4)
    model.eval()
    other = model.norm(model.conv(images))[:, [0, 2]]
    hold_constant_(model, plan, {"conv.conv2d": {1: -0.7}})
    made = model.norm(model.conv(images))
    assert torch.allclose(made[:, 1], torch.tensor(-0.7), atol=1e-6)
    assert torch.equal(made[:, [0, 2]], other)


def test_layers_that_share_a_weight_are_left_alone():
    plan = planned(0.1, 0.01)
    layer = plan.layers["|conv2d|1"]
    both = {"|conv2d|1": layer, "|conv2d|2": layer}
    shared = QuantizationPlan(both, (), plan.outputs, plan.inputs, {}, plan.grids)
    assert dead_channels(shared, moments([4.0], [[1.0], [1.0]])) == {}


def test_a_constant_channel_has_a_bias_that_fits_in_32_bits(tmp_path, residual, images):
    model = deadened(residual, images)
    quantized = fw.quantize(model, images, fw.QuantConfig(weight_bits=7))
    assert plan_of(quantized).constant
    result = fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    assert max(result.max_error.values()) < 0.03
