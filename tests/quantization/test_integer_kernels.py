import numpy as np
import pytest
import torch
from tests.quantization.conftest import block, trained_like
from torch import nn
from torch.nn import functional

import flyweight as fw
from flyweight.exporting.integer_gate import require_integer
from flyweight.exporting.onnx import OnnxConfig
from flyweight.graph.example_inputs import Example
from flyweight.measuring.census import take_census
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.block_reconstruction import reconstruct_blocks
from flyweight.quantization.integer_kernels import FOR_OPENVINO
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.placement import place
from flyweight.quantization.quantization_plan import LearnedSteps, QuantizationPlan
from flyweight.quantization.sites import record_sites
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name

UP = "up.conv_transpose2d"


class Upsampled(nn.Module):
    """A stem, a transposed convolution that `activation` ends, and a convolution."""

    def __init__(self, up, activation=None, norm=None):
        super().__init__()
        self.stem = block(3, 16, nn.ReLU())
        self.up, self.norm = up, norm or nn.Identity()
        self.activation = activation or nn.ReLU()
        self.last = nn.Conv2d(24, 4, 3)

    def forward(self, images):
        return self.last(self.activation(self.norm(self.up(self.stem(images)))))


class Added(Upsampled):
    """The same with a sum of two transposed convolutions, one after a convolution with a stride."""

    def __init__(self):
        super().__init__(nn.ConvTranspose2d(16, 24, 3, 1, 1))
        self.down = block(16, 16, nn.ReLU(), stride=2)
        self.other = nn.ConvTranspose2d(16, 24, 2, 2)

    def forward(self, images):
        stem = self.stem(images)
        return self.last(torch.relu(self.up(stem) + self.other(self.down(stem))))


NETWORKS = {
    "kernel of the stride": lambda: Upsampled(nn.ConvTranspose2d(16, 24, 2, 2)),
    "kernel 3": lambda: Upsampled(nn.ConvTranspose2d(16, 24, 3, 2, 1, 1)),
    "kernel 4 and a normalisation": lambda: Upsampled(
        nn.ConvTranspose2d(16, 24, 4, 2, 1, bias=False), norm=nn.BatchNorm2d(24)
    ),
    "LeakyReLU": lambda: Upsampled(nn.ConvTranspose2d(16, 24, 2, 2), nn.LeakyReLU(0.1)),
    "hard-swish": lambda: Upsampled(nn.ConvTranspose2d(16, 24, 2, 2), nn.Hardswish()),
    "sum": Added,
    "stride 1": lambda: Upsampled(nn.ConvTranspose2d(16, 24, (3, 1), 1, (1, 0))),
}


def made(name, last=None, **settings):
    torch.manual_seed(0)
    model = trained_like(NETWORKS[name]())
    model.last = last or model.last
    images = 2 * torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    config = fw.QuantConfig(weight_bits=7, runtime="openvino", **settings)
    return model, fw.quantize(model, images, config), images


def of_file(path, images):
    opened = runtime_by_name("openvino").open(path, OpenSettings())
    found = [next(iter(opened.run({"images": one[None].numpy()}).values())) for one in images]
    return np.concatenate(found)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("exact", [False, True])
def test_openvino_computes_a_transposed_convolution_on_integers(tmp_path, name, exact):
    pytest.importorskip("openvino")
    model, small, images = made(name, exact=exact)
    plan, path = plan_of(small), tmp_path / "net.onnx"
    layers = {layer.operation: layer for layer in plan.layers.values()}
    assert layers[UP].transposed
    assert not layers["last.conv2d"].transposed
    assert not plan.floats
    assert QuantizationPlan.from_json(plan.to_json()) == plan
    config = OnnxConfig(runtime="openvino")
    fw.export(small, path, example=(images[:1],), compare_on=[(images[1:2],)], config=config)
    require_integer(take_census(path, runtime="openvino"), plan)
    with torch.no_grad():
        wanted, dense = small(images), model(images)
    assert float((wanted - dense).norm() / dense.norm()) < 0.1
    levels = np.abs(of_file(path, images) - wanted.numpy()) / plan.grids["last.conv2d"].scale
    assert levels.max() < (1e-6 if exact else 1.5)
    assert float((levels > 0.5).mean()) < 1e-3


def test_weights_of_every_output_channel_have_a_scale(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, small, images = made("kernel 3")
    with torch.no_grad():
        # Far apart, so that one scale for all, or scales of inputs, would lose most channels.
        model.up.weight.mul_(torch.logspace(-3, 0, 24)[:, None, None])
        model.up.bias.zero_()
    small = fw.quantize(model, images, fw.QuantConfig(weight_bits=7, runtime="openvino"))
    fw.export(small, tmp_path / "net.onnx", example=(images[:1],))
    graph = onnx.load(tmp_path / "net.onnx").graph
    node = next(one for one in graph.node if one.op_type == "ConvTranspose")
    weight = next(one for one in graph.node if node.input[1] in one.output)
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    integers, scales = (values[name] for name in weight.input[:2])
    assert weight.attribute[0].i == 1
    assert integers.shape == (16, 24, 3, 3)
    assert np.abs(integers).max((0, 2, 3)).tolist() == [63] * 24
    expected = model.up.weight.detach().abs().amax((0, 2, 3)) / 63
    assert scales == pytest.approx(expected.numpy(), rel=1e-6)


def joined(function):
    class Joined(Upsampled):
        def forward(self, images):
            stem = self.stem(images)
            return self.last(torch.relu(self.up(function(stem))))

    return Joined(nn.ConvTranspose2d(16, 24, 2, 2))


def reason_of(model, **settings):
    example = Example((torch.randn(1, 3, 16, 16),))
    floats = place(record_sites(trained_like(model), example), **settings).floats
    return floats.get(UP, "")


@pytest.mark.parametrize(
    ("function", "positive"),
    [
        (lambda x: functional.max_pool2d(x, 2), True),
        (lambda x: functional.avg_pool2d(x, 2), True),
        (lambda x: x + torch.sigmoid(x), True),
        (lambda x: torch.cat([x[:, :8], x[:, 8:]], 1), True),
        (lambda x: functional.leaky_relu(x), False),
        (lambda x: x + functional.hardswish(x), False),
        (lambda x: x * 0.5, False),
        (lambda x: torch.add(x, torch.sigmoid(x), alpha=-1), False),
        (lambda x: x - torch.sigmoid(x), False),
        (lambda x: functional.pad(x, (1, 1), value=-1.0), False),
        (lambda x: functional.pad(x, (1, 1)), True),
    ],
)
def test_the_input_of_a_transposed_convolution_must_not_be_negative(function, positive):
    reason = reason_of(joined(function), kernels=FOR_OPENVINO)
    assert ("may be negative" in reason) == (not positive)
    assert bool(reason) == (not positive)


@pytest.mark.parametrize(
    ("up", "reason"),
    [
        (nn.ConvTranspose2d(16, 24, 2, 2, groups=2), "with groups"),
        (nn.ConvTranspose2d(16, 24, 3, 2, dilation=2), "with a dilation"),
    ],
)
def test_settings_without_a_kernel(up, reason):
    assert reason in reason_of(Upsampled(up), kernels=FOR_OPENVINO)


def test_a_file_for_both_runtimes_keeps_it_float():
    up = nn.ConvTranspose2d(16, 24, 2, 2)
    reason = reason_of(Upsampled(up))
    assert "for which ONNX Runtime has no integer kernel; --rewrite makes" in reason
    assert reason_of(Upsampled(up), skip=("up",), kernels=FOR_OPENVINO).startswith("named")


@pytest.mark.parametrize("name", ["kernel 3", "kernel 4 and a normalisation"])
def test_its_weights_are_rounded_by_training(name):
    model, small, images = made(name, nn.Identity())
    losses = layer_losses(model, small, images)
    assert 0 < losses[UP] < 1e-2
    with torch.no_grad():
        wanted = model(images)
        before = float((small(images) - wanted).square().mean())
    for rounded in (round_adaptively, reconstruct_blocks):
        found = rounded(model, small, images, AdaptiveRounding(steps=200, layers=(UP,)))
        assert not torch.equal(found.up.weight, small.up.weight)
        with torch.no_grad():
            assert float((found(images) - wanted).square().mean()) < before


@pytest.mark.parametrize("hold_after", [0, 2])
def test_its_steps_are_trained(tmp_path, hold_after):
    pytest.importorskip("openvino")
    _, small, images = made("kernel 4 and a normalisation")
    learned = trainable(small, LearnedSteps("lsq", hold_after)).train()
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        learned(images).square().mean().backward()
        assert hold_after or float(learned.up.weight.grad.abs().sum()) > 0
        optimizer.step()
    learned.eval()
    ended = settled(learned)
    with torch.no_grad():
        wanted = learned(images)
        assert torch.allclose(ended(images), wanted, atol=1e-6)
    path = tmp_path / "net.onnx"
    config = OnnxConfig(runtime="openvino")
    fw.export(ended, path, example=(images[:1],), compare_on=[(images[1:2],)], config=config)
    level = plan_of(ended).grids["last.conv2d"].scale
    assert np.abs(of_file(path, images) - wanted.numpy()).max() < 1.5 * level


def test_a_channel_that_is_constant_has_no_weight():
    torch.manual_seed(0)
    model = trained_like(NETWORKS["kernel 4 and a normalisation"]())
    images = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        # Input channel 2 hardly changes, and output channel 3 amplifies it.
        model.stem[1].weight[2] = 1e-5
        model.stem[1].bias[2] = float(model.stem(images).max()) / 255 / 2
        model.up.weight[:, 3] = 0.0
        model.up.weight[2, 3, 1:3, 1:3] = 0.5
        model.norm.running_var[3] = 0.0
        model.norm.running_mean[3] = model.up(model.stem(images))[:, 3].mean()
    small = fw.quantize(model, images, fw.QuantConfig(weight_bits=7, runtime="openvino"))
    assert plan_of(small).constant[UP] == (3,)
    assert not small.up.weight[:, 3].any()
    assert small.up.weight[3].any()


def test_equalization_scales_the_output_channels_that_a_depthwise_convolution_reads():
    class Wide(Upsampled):
        def __init__(self):
            super().__init__(nn.ConvTranspose2d(16, 24, 2, 2))
            self.each = nn.Conv2d(24, 24, 3, groups=24)

        def forward(self, images):
            return self.last(torch.relu(self.each(torch.relu(self.up(self.stem(images))))))

    torch.manual_seed(0)
    model, images = trained_like(Wide()), torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        model.up.weight.mul_(torch.logspace(-1, 0, 24)[:, None, None])
        model.up.bias.zero_()
    config = fw.QuantConfig(weight_bits=7, runtime="openvino", equalize=True)
    small = fw.quantize(model, images, config)
    factors = (small.up.weight / model.up.weight).detach().mean((0, 2, 3))
    assert float(factors[0]) > 3
    back = (model.each.weight / small.each.weight).detach().mean((1, 2, 3))
    assert torch.allclose(back, factors, rtol=1e-4)
    with torch.no_grad():
        wanted = model(images)
        assert float((small(images) - wanted).norm() / wanted.norm()) < 0.1
