import pytest
import torch
from tests.quantization.conftest import Residual, trained_like

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.learned_steps import trainable
from flyweight.quantization.network import forward_of, plan_of

QUICK = AdaptiveRounding(steps=60, rate=0.05)


@pytest.fixture
def coarse():
    """A network whose weights use few levels: the largest ones read a channel of zeros."""
    torch.manual_seed(0)
    model = trained_like(Residual())
    with torch.no_grad():
        model.branch[1].weight[0] = model.branch[1].bias[0] = 0
        model.narrow.weight[:, 0] = 20
    return model


def images(seed):
    return torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def integers(model):
    forward = forward_of(model)
    forward.prepare()
    found = {}
    with torch.no_grad():
        for layer in forward.plan.layers.values():
            weight, bias = forward.folded(layer)
            scales = forward.scales_of(layer, weight, bias)
            found[layer.operation] = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
    return found


def test_results_come_nearer_to_those_of_the_float_network_on_other_images(coarse):
    quantized = fw.quantize(coarse, images(1), fw.QuantConfig(weight_bits=7, correct_bias=False))
    adapted = round_adaptively(coarse, quantized, images(1), QUICK)
    with torch.no_grad():
        wanted = coarse(images(2))
        errors = [float((one(images(2)) - wanted).norm()) for one in (adapted, quantized)]
    assert errors[0] < 0.9 * errors[1]


def test_weights_move_to_one_of_their_two_neighbours_and_scales_stay(coarse):
    quantized = fw.quantize(coarse, images(1))
    adapted = round_adaptively(coarse, quantized, images(1), QUICK)
    before, after = integers(quantized), integers(adapted)
    moved = 0
    for name, levels in before.items():
        found = after[name]
        assert torch.allclose(found, found.round(), atol=2e-3)
        assert bool(((found.round() - levels).abs() < 1.001).all())
        assert torch.equal(
            levels.flatten(1).abs().amax(1).round(), found.flatten(1).abs().amax(1).round()
        )
        moved += int((found.round() != levels.round()).sum())
    assert moved > 10
    assert plan_of(adapted) == plan_of(quantized)


def test_only_the_named_layers_change(coarse):
    quantized = fw.quantize(coarse, images(1))
    only = AdaptiveRounding(("head.linear",), steps=20)
    adapted = round_adaptively(coarse, quantized, images(1), only)
    changed = {
        name
        for name, value in adapted.state_dict().items()
        if not torch.equal(value, quantized.state_dict()[name])
    }
    assert changed == {"head.weight"}


def test_the_file_has_the_chosen_integers(tmp_path, coarse):
    quantized = fw.quantize(coarse, images(1), fw.QuantConfig(weight_bits=7))
    adapted = round_adaptively(coarse, quantized, images(1), AdaptiveRounding(steps=20))
    example, more = (images(1)[:1],), [(images(1)[1:2],)]
    result = fw.export(adapted, tmp_path / "net.onnx", example=example, compare_on=more)
    assert max(result.max_error.values()) < 0.03


def test_mistakes_are_named(coarse):
    quantized = fw.quantize(coarse, images(1))
    with pytest.raises(PlanError, match="a float Residual"):
        round_adaptively(coarse, coarse, images(1))
    with pytest.raises(PlanError, match="a trained Residual"):
        round_adaptively(coarse, trainable(quantized), images(1))
    with pytest.raises(PlanError, match="Received none"):
        round_adaptively(coarse, quantized, [])
    with pytest.raises(PlanError, match="'stem'"):
        round_adaptively(coarse, quantized, images(1), AdaptiveRounding(("stem",)))
    with pytest.raises(PlanError, match="'steps'"):
        AdaptiveRounding(steps=0)
