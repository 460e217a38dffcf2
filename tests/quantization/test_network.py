import copy

import pytest
import torch
from tests.quantization.conftest import block, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.network import plan_of, quantize_


def test_the_first_layer_computes_what_integers_give(residual, images):
    """By hand: integers of input and folded weight, 32-bit sums, and the grid of the result."""
    quantized = fw.quantize(residual, images, fw.QuantConfig(correct_bias=False))
    grids, layer = plan_of(quantized).grids, residual.stem
    source, made = grids["args[0]"], grids["stem.2.hardtanh"]
    factor = layer[1].weight / torch.sqrt(layer[1].running_var + layer[1].eps)
    weight = (layer[0].weight * factor[:, None, None, None]).detach()
    bias = (layer[1].bias - layer[1].running_mean * factor).detach()
    scales = weight.flatten(1).abs().amax(1) / 127
    x = (torch.round(images / source.scale) + source.zero_point).clamp(0, 255) - source.zero_point
    w = torch.round(weight / scales[:, None, None, None])
    b = torch.round(bias / (scales * source.scale))
    sums = nn.functional.conv2d(x.double(), w.double(), b.double(), padding=1)
    values = sums * (scales * source.scale).double()[None, :, None, None]
    expected = torch.round(values.clamp(0, 6) / made.scale).clamp(0, 255)
    found = []
    quantized.branch[0].register_forward_pre_hook(lambda module, args: found.append(args[0]))
    with torch.no_grad():
        quantized(images)
    levels = torch.round(found[0] / made.scale)
    assert (levels - expected).abs().max() <= 1
    assert (levels != expected).double().mean() < 1e-3


def test_it_is_near_the_float_network_and_leaves_that_alone(residual, images):
    before = copy.deepcopy(residual.state_dict())
    quantized = fw.quantize(residual, images)
    with torch.no_grad():
        wanted, found = residual(images), quantized(images)
    assert (wanted - found).norm() < 0.1 * wanted.norm()
    assert not torch.equal(wanted, found)
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())
    assert plan_of(residual) is None


def test_it_trains_and_is_copied(residual, images):
    quantized = fw.quantize(residual, images).train()
    twin = copy.deepcopy(quantized)
    assert torch.equal(quantized(images), twin(images))
    twin(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in quantized.parameters())
    twin.stem[0].weight.data.mul_(-1)
    assert not torch.equal(quantized(images), twin(images))


def test_batch_statistics_do_not_change_in_training(residual, images):
    quantized = fw.quantize(residual, images).train()
    before = quantized.stem[1].running_mean.clone()
    quantized(images)
    assert torch.equal(quantized.stem[1].running_mean, before)


def test_a_second_time_and_another_network_are_refused(residual, images):
    quantized = fw.quantize(residual, images)
    with pytest.raises(PlanError, match="may be quantized already"):
        quantize_(quantized, plan_of(quantized))
    with pytest.raises(PlanError, match="which Linear does not have"):
        quantize_(nn.Linear(2, 2), plan_of(quantized))


def test_a_container_that_runs_all_that_it_holds(tmp_path, images):
    torch.manual_seed(0)
    model = trained_like(nn.Sequential(*block(3, 8, nn.ReLU()), nn.Conv2d(8, 2, 1)))
    quantized = fw.quantize(model, images, fw.QuantConfig(weight_bits=7))
    with torch.no_grad():
        wanted, found = model(images), quantized(images)
    assert (wanted - found).norm() < 0.1 * wanted.norm()
    assert "quantizers.3/conv2d.scale" in quantized.state_dict()
    result = fw.export(quantized, tmp_path / "net.onnx", example=(images[:1],))
    assert max(result.max_error.values()) < 0.03


class Whole(nn.Module):
    """Takes whole numbers, and pools with the places of the largest values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pixels):
        largest, places = nn.functional.adaptive_max_pool2d(
            self.conv(pixels.to(torch.float32)), 2, return_indices=True
        )
        return largest, places


def test_names_of_attributes_and_results_with_whole_numbers_are_no_obstacle():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    model = Whole().eval()
    quantized = fw.quantize(model, pixels)
    assert "to" in plan_of(quantized).grids
    with torch.no_grad():
        (largest, places), (wanted, _) = quantized(pixels), model(pixels)
    assert places.dtype == torch.int64
    assert (largest - wanted).norm() < 0.05 * wanted.norm()
    again = copy.deepcopy(model)
    quantize_(again, plan_of(quantized))
    again.load_state_dict(quantized.state_dict())
    with torch.no_grad():
        assert torch.equal(again(pixels)[0], largest)
