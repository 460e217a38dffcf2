import pytest
import torch

from flyweight.quantization.grids import HIGHEST
from flyweight.quantization.rounding import (
    ClippedRounding,
    FixedRounding,
    HeldWeight,
    LearnedRounding,
    Steps,
    WeightRounding,
    dot,
    finite,
)

STEPS = [Steps(0.02, 0), Steps(0.0371, 113), Steps(1e-3, 255)]


def values_around(steps, shape=(4, 3, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    middle = (127 - steps.zero_point) * steps.scale
    return middle + torch.randn(shape, generator=generator) * 100 * steps.scale


@pytest.mark.parametrize("steps", STEPS)
def test_values_and_gradients_are_those_of_the_fused_operation(steps):
    values = values_around(steps).requires_grad_()
    gradient = torch.randn_like(values)
    fused = torch.fake_quantize_per_tensor_affine(values, steps.scale, steps.zero_point, 0, HIGHEST)
    made = FixedRounding.apply(values, steps)
    assert torch.equal(made, fused)
    (wanted,) = torch.autograd.grad(fused, values, gradient)
    (found,) = torch.autograd.grad(made, values, gradient)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, gradient)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_learned_steps_have_the_gradients_of_the_learnable_operation(steps, layout):
    """PyTorch's own learnable operation, which is slow, is the oracle."""
    values = values_around(steps).contiguous(memory_format=layout).requires_grad_()
    scale = torch.tensor([steps.scale], requires_grad=True)
    zero = torch.tensor([float(steps.zero_point)], requires_grad=True)
    made = torch._fake_quantize_learnable_per_tensor_affine(values, scale, zero, 0, HIGHEST, 1.0)
    gradient = torch.randn_like(values)
    wanted = torch.autograd.grad(made, (values, scale, zero), gradient)
    factor = torch.ones((), requires_grad=True)
    shift = torch.zeros((), requires_grad=True)
    ours = LearnedRounding.apply(values, factor, shift, steps, steps.scale)
    assert torch.equal(ours, made)
    found = torch.autograd.grad(ours, (values, factor, shift), gradient)
    assert torch.equal(found[0], wanted[0])
    # LSQ: 1 / sqrt(features * largest integer), for a step relative to the start.
    share = (3 * 8 * 8 * 255) ** -0.5
    assert found[1] == pytest.approx(float(wanted[1]) * share / steps.scale, rel=2e-3)
    expected = float(wanted[2]) * share / (255 * steps.scale**2)
    assert found[2] == pytest.approx(expected, rel=2e-3, abs=1e-3)


def test_a_clip_value_has_the_gradients_of_clipped_values_and_a_decay():
    steps = Steps(0.02, 0)
    values = torch.tensor([[1.0, 4.9, 5.3, 9.0]], requires_grad=True)
    factor = torch.ones((), requires_grad=True)
    made = ClippedRounding.apply(values, factor, steps, 0.01)
    gradient = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    found = torch.autograd.grad(made, (values, factor), gradient)
    assert found[0].tolist() == [[1.0, 10.0, 0.0, 0.0]]
    # The clip value is 5.1 now and was 2.55; its parameter is relative to the start.
    assert float(found[1]) == pytest.approx((1100 + 1e-4 * 5.1) / 2.55, rel=1e-6)


def test_scales_of_a_weight_have_the_gradients_of_the_learnable_operation():
    weight = torch.randn(5, 3, 2, 2).requires_grad_()
    scales = (weight.detach().flatten(1).abs().amax(1) / 100).requires_grad_()
    highest = 63
    made = torch._fake_quantize_learnable_per_channel_affine(
        weight, scales, torch.zeros(5), 0, -highest, highest, 1.0
    )
    gradient = torch.randn_like(weight)
    wanted = torch.autograd.grad(made, (weight, scales), gradient)
    factor = torch.ones(5, requires_grad=True)
    fixed = scales.detach()
    ours = WeightRounding.apply(weight, factor, fixed, fixed, highest)
    assert torch.allclose(ours, made, atol=1e-6)
    found = torch.autograd.grad(ours, (weight, factor), gradient)
    assert torch.equal(found[0], wanted[0])
    share = (12 * highest) ** -0.5
    assert torch.allclose(found[1], wanted[1] * share / fixed, rtol=1e-3, atol=1e-3)


def test_a_held_weight_has_no_gradient_and_its_scales_have_one():
    weight, factor = torch.randn(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    scales = torch.tensor([0.1, 0.2])
    integers = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    made = HeldWeight.apply(weight, factor, integers * scales[:, None], scales, scales)
    gradient = torch.randn(2, 3)
    found = torch.autograd.grad(made, (weight, factor), gradient)
    assert not found[0].any()
    # A step of SGD changes the weight by the projection of its gradient on the weight.
    change = found[1] * scales * integers.T
    along = (gradient * integers).sum(1) / integers.square().sum(1) * integers.T
    assert torch.allclose(change, along, atol=1e-6)


def test_a_product_of_any_layout():
    one, other = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    wanted = pytest.approx(float((one * other).sum()), rel=1e-4, abs=1e-4)
    last = torch.channels_last
    assert float(dot(one, other)) == wanted
    assert float(dot(one.contiguous(memory_format=last), other)) == wanted
    both = (part.contiguous(memory_format=last) for part in (one, other))
    assert float(dot(*both)) == wanted


def test_gradients_that_are_no_numbers_are_zero():
    given = torch.tensor([1.0, float("nan"), float("inf")])
    assert finite(given).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", [LearnedRounding, ClippedRounding])
def test_a_result_may_be_written_into(kind):
    steps, found = Steps(0.02, 100), []
    values = values_around(steps)
    for change in (lambda made: made * 3, lambda made: made.mul_(3)):
        factor = torch.ones((), requires_grad=True)
        rest = () if kind is ClippedRounding else (None,)
        made = kind.apply(values, factor, *rest, steps, 0.02)
        (change(made) * torch.linspace(0, 1, 8)).sum().backward()
        found.append(factor.grad)
    assert torch.equal(*found)
