import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import GraphError, PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.network import plan_of


def test_images_come_as_a_tensor_or_in_batches(residual, images):
    plans = {
        plan_of(fw.quantize(residual, given)).to_json()
        for given in (
            images,
            images.split(8),
            [(part,) for part in images.split(8)],
            [Example((part,)) for part in images.split(8)],
        )
    }
    assert len(plans) == 1


def test_mistakes_are_named(residual, images):
    with pytest.raises(PlanError, match="Received none"):
        fw.quantize(residual, images[:0])
    with pytest.raises(GraphError, match="must run on the images"):
        fw.quantize(residual, images[:, :2])
    with pytest.raises(PlanError, match="can run on integers"):
        fw.quantize(nn.ReLU(), images)
    with pytest.raises(PlanError, match="'median'"):
        fw.QuantConfig(ranges="median")
    with pytest.raises(PlanError, match="must be 8 or 7"):
        fw.QuantConfig(weight_bits=4)
    with pytest.raises(PlanError, match="percentile"):
        fw.QuantConfig(percentile=40)


def test_a_pruned_network_is_quantized_and_saved(tmp_path, images):
    model = fw.create("timm/mobilenetv3_small_050", num_classes=3)
    x = torch.randn(8, 3, 64, 64)
    model.eval()
    small = fw.prune(model, fw.plan(fw.trace(model, (x[:1],)), 0.3))
    quantized = fw.quantize(small, x)
    fw.save(quantized, tmp_path / "quantized.safetensors")
    loaded = fw.load(tmp_path / "quantized.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), quantized.eval()(x))
    assert plan_of(loaded) == plan_of(quantized)


@pytest.mark.parametrize("ranges", ["percentile", "mse", "minmax", "moving_average", "kl"])
def test_every_way_to_choose_ranges(residual, images, ranges):
    quantized = fw.quantize(residual, images, fw.QuantConfig(ranges=ranges))
    with torch.no_grad():
        wanted = residual(images)
        assert (quantized(images) - wanted).norm() < 0.3 * wanted.norm()
