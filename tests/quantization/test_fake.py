import torch

from flyweight.quantization.fake import (
    Quantizer,
    WeightQuantizer,
    rounded_bias,
    rounded_weight,
    weight_scales,
)
from flyweight.quantization.grids import Grid


def test_a_quantizer_rounds_half_to_even_and_clips():
    quantizer = Quantizer(Grid(0.5, 10))
    values = torch.tensor([-6.0, -5.0, 0.25, 0.75, 0.7, 122.4, 200.0])
    expected = torch.tensor([-5.0, -5.0, 0.0, 1.0, 0.5, 122.5, 122.5])
    assert torch.equal(quantizer(values), expected)


def test_gradients_pass_where_nothing_is_clipped():
    values = torch.tensor([0.3, 500.0], requires_grad=True)
    Quantizer(Grid(0.5, 0))(values).sum().backward()
    assert values.grad.tolist() == [1.0, 0.0]


def test_every_output_channel_of_a_weight_uses_all_levels():
    weight = torch.randn(5, 3, 2, 2)
    scales = weight_scales(weight)
    rounded = rounded_weight(weight, scales)
    levels = rounded / scales[:, None, None, None]
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert levels.flatten(1).abs().amax(1).round().tolist() == [127.0] * 5
    assert torch.allclose(rounded, weight, atol=float(scales.max()) / 2 + 1e-6)


def test_a_channel_of_zeros_stays_zero():
    weight = torch.zeros(2, 3)
    assert torch.equal(rounded_weight(weight, weight_scales(weight)), weight)


def test_a_bias_is_a_multiple_of_its_steps_and_has_the_gradient_of_itself():
    bias = torch.tensor([0.26, -1.0], requires_grad=True)
    steps = torch.tensor([0.1, 0.3])
    rounded = rounded_bias(bias, steps)
    assert torch.allclose(rounded, torch.tensor([0.3, -0.9]))
    rounded.sum().backward()
    assert bias.grad.tolist() == [1.0, 1.0]


def test_seven_bits_use_half_of_the_levels():
    weight = torch.randn(5, 3)
    levels = weight / weight_scales(weight, 7)[:, None]
    assert levels.abs().amax(1).round().tolist() == [63.0] * 5


def test_steps_of_a_folded_weight_move_as_those_of_the_weight_before_folding():
    """LSQ on the weight that is trained, by PyTorch's own learnable operation, is the oracle."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, 2, 2, generator=generator)
    folding = torch.tensor([0.1, -0.5, 30.0])
    own = (weight.flatten(1).abs().amax(1) / 90).requires_grad_()
    made = torch._fake_quantize_learnable_per_channel_affine(
        weight, own, torch.zeros(3), 0, -127, 127, 1.0
    )
    gradient = torch.randn(made.shape, generator=generator)
    (of_step,) = torch.autograd.grad(made * folding.reshape(-1, 1, 1, 1), own, gradient)
    wanted = of_step * (16 * 127) ** -0.5 / own.detach()

    scales = own.detach() * folding.abs()
    quantizer = WeightQuantizer(scales, 8, learned=True)
    folded = weight * folding.reshape(-1, 1, 1, 1)
    result = quantizer.rounded(folded, scales, folding)
    assert torch.allclose(result, made.detach() * folding.reshape(-1, 1, 1, 1), atol=1e-5)
    (found,) = torch.autograd.grad(result, quantizer.factor, gradient)
    # A large factor, of a channel that is nearly constant, does not make it faster.
    assert torch.allclose(found[:2], wanted[:2], rtol=1e-3)
    assert torch.allclose(found[2], wanted[2] / 900, rtol=1e-3)
