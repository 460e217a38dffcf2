import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.adaptive_rounding import AdaptiveRounding
from flyweight.quantization.block_reconstruction import _Networks, reconstruct_blocks
from flyweight.quantization.network import forward_of, plan_of
from flyweight.quantization.quantize import batches_of

QUICK = AdaptiveRounding(steps=60, rate=0.05)


def images(seed):
    return torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def coarse():
    """A network whose weights use few levels: the largest ones read a channel of zeros."""
    torch.manual_seed(0)
    model = trained_like(Residual())
    with torch.no_grad():
        model.branch[1].weight[0] = model.branch[1].bias[0] = 0
        model.narrow.weight[:, 0] = 20
    return model


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.Hardswish, nn.SiLU, nn.LeakyReLU])
def test_executed_by_blocks_both_networks_compute_what_they_do_as_a_whole(activation):
    torch.manual_seed(0)
    model = trained_like(Residual(activation))
    quantized = fw.quantize(model, images(1))
    both = _Networks(model, forward_of(quantized), list(batches_of(images(2), 10)))
    for number in range(len(both.blocks)):
        both.advance(number)
    (end,) = both.blocks[-1].ends
    with torch.no_grad():
        assert torch.equal(torch.cat([made[end] for made in both.integers]), quantized(images(2)))
        made = torch.cat([made[end] for made in both.dense])
        assert torch.allclose(made, model(images(2)), atol=1e-6)


def test_results_come_nearer_to_those_of_the_float_network_on_other_images(coarse):
    quantized = fw.quantize(coarse, images(1), fw.QuantConfig(weight_bits=7, correct_bias=False))
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    adapted = reconstruct_blocks(coarse, quantized, images(1), QUICK)
    with torch.no_grad():
        wanted = coarse(images(2))
        errors = [float((one(images(2)) - wanted).norm()) for one in (adapted, quantized)]
    assert errors[0] < 0.9 * errors[1]
    assert plan_of(adapted) == plan_of(quantized)
    assert all(torch.equal(value, before[name]) for name, value in quantized.state_dict().items())


def test_only_blocks_with_a_named_layer_change(coarse):
    quantized = fw.quantize(coarse, images(1))
    only = AdaptiveRounding(("narrow.conv2d",), steps=20)
    adapted = reconstruct_blocks(coarse, quantized, images(1), only)
    changed = {
        name
        for name, value in adapted.state_dict().items()
        if not torch.equal(value, quantized.state_dict()[name])
    }
    assert changed == {"stem.0.weight", "branch.0.weight", "narrow.weight"}


def test_the_file_has_the_chosen_integers(tmp_path, coarse):
    quantized = fw.quantize(coarse, images(1), fw.QuantConfig(weight_bits=7))
    adapted = reconstruct_blocks(coarse, quantized, images(1), AdaptiveRounding(steps=20))
    example, more = (images(1)[:1],), [(images(1)[1:2],)]
    result = fw.export(adapted, tmp_path / "net.onnx", example=example, compare_on=more)
    assert max(result.max_error.values()) < 0.03


def test_mistakes_are_named(coarse):
    quantized = fw.quantize(coarse, images(1))
    with pytest.raises(PlanError, match="a float Residual"):
        reconstruct_blocks(coarse, coarse, images(1))
    with pytest.raises(PlanError, match="Received none"):
        reconstruct_blocks(coarse, quantized, [])
    with pytest.raises(PlanError, match="'stem'"):
        reconstruct_blocks(coarse, quantized, images(1), AdaptiveRounding(("stem",)))
    scaled = fw.quantize(coarse, images(1), fw.QuantConfig(exact=True))
    with pytest.raises(PlanError, match=r"with others. Quantize without equalize"):
        reconstruct_blocks(coarse, scaled, images(1))
