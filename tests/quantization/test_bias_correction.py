import copy
import math

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.bias_correction import BiasShifts, _shift, bias_shifts, shift_biases_
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantize import correct_biases


def means(model, images):
    """Mean of every channel that two layers read, the last one after a normalisation."""
    found = {}

    def note(name):
        return lambda module, args: found.update({name: args[0].mean((0, 2, 3))})

    hooks = [
        model.narrow.register_forward_pre_hook(note("branch")),
        model.branch.register_forward_pre_hook(note("stem")),
    ]
    with torch.no_grad():
        result = model(images)
    for hook in hooks:
        hook.remove()
    return found, result.mean(0)


def test_means_of_the_output_become_those_of_the_float_network(residual, images):
    with torch.no_grad():  # A coarse grid, so that there is something to correct.
        residual.head.weight[:, 0] *= 40
        residual.narrow.weight[:, 1] *= 40
    _, wanted = means(residual, images)
    errors = []
    for correct in (False, True):
        config = fw.QuantConfig(correct_bias=correct, weight_bits=7)
        _, found = means(fw.quantize(residual, images, config), images)
        errors.append(float((found - wanted).norm()))
    assert errors[1] < 0.3 * errors[0]


def test_shifts_go_to_the_bias_or_to_what_the_normalisation_adds(residual, images):
    quantized = fw.quantize(residual, images)
    plan = plan_of(quantized)
    shifts = bias_shifts(residual, quantized, plan, [Example((images,))])
    assert set(shifts.channels) == {layer.operation for layer in plan.layers.values()}
    before = quantized.stem[1].bias.clone(), quantized.head.bias.clone()
    values = {name: one * 0 + 0.5 for name, one in shifts.channels.items()}
    shift_biases_(quantized, plan, BiasShifts(values))
    assert torch.allclose(quantized.stem[1].bias - before[0], torch.tensor(0.5))
    assert torch.allclose(quantized.head.bias - before[1], torch.tensor(0.5))


def test_shifts_of_batches_are_averaged(residual, images):
    quantized = fw.quantize(residual, images)
    parts = [
        bias_shifts(residual, quantized, plan_of(quantized), [Example((part,))])
        for part in images.split(6)
    ]
    both = bias_shifts(
        residual, quantized, plan_of(quantized), [Example((part,)) for part in images.split(6)]
    )
    mean = sum(part.channels["stem.0.conv2d"] for part in parts) / 2
    assert both.channels["stem.0.conv2d"] == pytest.approx(mean)


class Clipped(nn.Module):
    """A layer that reads one channel."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)

    def forward(self, images):
        return self.layer(images)


def test_what_clipping_takes_from_a_few_values_does_not_move_the_others():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    images[:, :, 0, 0] = 10.0
    model = Clipped().eval()
    plain, corrected = (
        fw.quantize(
            model, images, fw.QuantConfig(percentile=99.5, weight_bits=7, correct_bias=correct)
        )
        for correct in (False, True)
    )
    with torch.no_grad():
        wanted = model(images)[..., 1:, 1:]
        errors = [
            float((one(images)[..., 1:, 1:] - wanted).abs().mean()) for one in (plain, corrected)
        ]
    # The mean of the differences, a hundredth of the weight, is three levels of the input.
    assert errors[1] < 1.1 * errors[0]


def test_biases_are_corrected_after_roundings_were_chosen(residual, images):
    plain = fw.quantize(residual, images, fw.QuantConfig(correct_bias=False))
    corrected, wanted = correct_biases(residual, plain, images), fw.quantize(residual, images)
    assert plan_of(corrected) == plan_of(plain)
    state, before = corrected.state_dict(), plain.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.state_dict().items())
    assert not torch.equal(state["head.bias"], before["head.bias"])


def test_only_a_quantized_network_with_the_weights_of_the_float_one_is_corrected(residual, images):
    with pytest.raises(PlanError, match=r"Received a float Residual\. Give what fw\.quantize made"):
        correct_biases(residual, residual, images)
    other = copy.deepcopy(residual)
    with torch.no_grad():
        other.head.weight[0].mul_(2)
    with pytest.raises(PlanError, match=r"Received 'head\.linear' with others\."):
        correct_biases(other, fw.quantize(residual, images), images)
    with pytest.raises(PlanError, match="must see images"):
        correct_biases(residual, fw.quantize(residual, images), [])


EVERYTHING = (-math.inf, math.inf)


def test_results_of_other_sizes_are_compared_by_their_medians():
    wanted, found = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 9.0]]), torch.tensor([[1.5], [5.0]])
    assert _shift(wanted, found, EVERYTHING).tolist() == [0.5, 0.0]
    assert _shift(wanted, found.repeat(1, 3), EVERYTHING).tolist() == [0.5, 0.0]
    assert _shift(wanted, found[:, :0], EVERYTHING).tolist() == [0.0, 0.0]


def test_values_that_the_grid_clips_do_not_count():
    wanted = torch.tensor([[-4.0, -3.0, -2.0, 1.0, 2.0, 9.0], [-4.0, -3.0, -2.0, -1.0, -1.0, 2.0]])
    found = wanted - torch.tensor([3.0, 3.0, 3.0, 0.5, 0.5, 7.0])
    # The second channel shows one value of six, and is not shifted by it.
    assert _shift(wanted, found, (0.0, 6.0)).tolist() == [0.5, 0.0]
    assert _shift(wanted, found, EVERYTHING).tolist() == [3.0, 3.0]


def test_a_shift_of_what_a_relu_shows_is_found():
    class Rectified(Clipped):
        def forward(self, images):
            return torch.relu(self.layer(images))

    model, images = Rectified().eval(), torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        model.layer.weight.fill_(1.0)
        model.layer.bias.fill_(-0.5)
    quantized = fw.quantize(model, images)
    with torch.no_grad():
        # As if rounding made every value lower.
        quantized.layer.bias.sub_(0.01)
    plan = plan_of(quantized)
    shifts = bias_shifts(model, quantized, plan, [Example((images,))])
    assert shifts.channels["layer.conv2d"] == pytest.approx([0.01, 0.01], abs=1e-3)
