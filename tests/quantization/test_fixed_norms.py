import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import flyweight as fw
from flyweight.graph.containers import tensors_in
from flyweight.measuring.census import take_census
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.block_reconstruction import reconstruct_blocks
from flyweight.quantization.fixed_norms import as_batch_norms_
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.network import plan_of

SAFE = fw.QuantConfig(weight_bits=7)
QUICK = AdaptiveRounding(steps=3)


class DetrFrozenBatchNorm2d(nn.Module):
    """As that of transformers: the epsilon is no attribute."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x):
        weight, bias, mean, var = (
            tensor.reshape(1, -1, 1, 1)
            for tensor in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


def network(norm):
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3, bias=False), norm(8), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Conv2d(8, 8, 1, bias=False), norm(8), nn.Conv2d(8, 4, 1))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        buffer.copy_(torch.rand(8, generator=generator) + (0.5 if "var" in name else 0.0))
    return model.eval()


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, DetrFrozenBatchNorm2d])
def test_one_operation_computes_the_same(images, norm):
    model = network(norm)
    wanted = model(images)
    as_batch_norms_(model)
    for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.allclose(one(images), wanted, atol=1e-5)
        assert one[1].forward.args[0] is one[1]


def test_batch_normalisations_that_learn_are_left_alone():
    model = nn.Sequential(nn.BatchNorm2d(3))
    as_batch_norms_(model)
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, DetrFrozenBatchNorm2d])
def test_they_are_folded_into_the_layer_before(tmp_path, images, norm):
    model = network(norm)
    small = fw.quantize(model, images, SAFE)
    plan = plan_of(small)
    assert plan.quantizers == ("args[0]", "2.relu", "4.batch_norm", "5.conv2d")
    fw.export(small, tmp_path / "net.onnx", example=(images[:1],))
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        census = take_census(tmp_path / "net.onnx", runtime=runtime)
        assert (census.integer_count, census.islands) == (3, 0)
    assert "forward" not in vars(model[1])


def test_a_detector_is_as_it_was_after_it_was_saved(tmp_path):
    torch.manual_seed(0)
    model = fw.create("faster_rcnn_r50", width=0.25, proposals=5).eval()
    small = fw.quantize(model, torch.randn(4, 3, 64, 64), fw.QuantConfig(weight_bits=7))
    assert sum(layer.norm is not None for layer in plan_of(small).layers.values()) == 53
    fw.save(small, tmp_path / "net.safetensors")
    again, images = fw.load(tmp_path / "net.safetensors"), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(tensors_in(small(images)), tensors_in(again(images)), strict=True):
            assert torch.equal(one, other)


def test_layers_with_them_are_compared_and_rounded(images):
    model = network(FrozenBatchNorm2d)
    small = fw.quantize(model, images, fw.QuantConfig(weight_bits=7))
    losses = layer_losses(model, small, images)
    assert set(losses) == {"0.conv2d", "3.conv2d", "5.conv2d"}
    assert 0 < max(losses.values()) < 1e-2
    for rounded in (round_adaptively, reconstruct_blocks):
        found = rounded(model, small, images, QUICK)
        with torch.no_grad():
            wanted, made = model(images), found(images)
        assert float((wanted - made).square().sum() / wanted.square().sum()) < 1e-2
