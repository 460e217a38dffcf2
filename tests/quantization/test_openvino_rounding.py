import numpy as np
import pytest
import torch
from tests.quantization.conftest import block, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import ConfigError
from flyweight.exporting.integer_gate import require_integer
from flyweight.exporting.onnx import OnnxConfig
from flyweight.measuring.census import take_census
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.block_reconstruction import reconstruct_blocks
from flyweight.quantization.grids import Grid
from flyweight.quantization.layer_losses import layer_losses
from flyweight.quantization.network import plan_of
from flyweight.quantization.openvino_rounding import with_zero_added
from flyweight.quantization.quantization_plan import QuantizationPlan
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name


class Branches(nn.Module):
    """A stem, a branch of two convolutions, and a sum that `join` makes of them."""

    def __init__(self, join, end):
        super().__init__()
        self.stem, self.first = block(3, 8, nn.ReLU()), block(8, 8, nn.ReLU())
        self.second, self.short = block(8, 8, end), block(8, 8, nn.Identity())
        self.last = nn.Conv2d(8, 4, 1)
        self.join = join

    def forward(self, images):
        stem = self.stem(images)
        return self.last(self.join(self, stem, self.second(self.first(stem))))


def later_reader(net, stem, branch):
    return (stem + branch) + net.short(stem)


def two_readers(net, stem, branch):
    joined = stem + branch
    return joined + net.short(branch)


PLAIN = nn.Identity
NETWORKS = {
    "a branch": (lambda _, stem, branch: stem + branch, PLAIN, ["second.1"]),
    "the other order": (lambda _, stem, branch: branch + stem, PLAIN, ["second.1"]),
    "ReLU before": (lambda _, stem, branch: stem + branch, nn.ReLU, ["second.2"]),
    "ReLU after": (lambda _, stem, branch: torch.relu(stem + branch), PLAIN, ["second.1"]),
    "LeakyReLU before": (lambda _, stem, branch: stem + branch, nn.LeakyReLU, []),
    "sigmoid before": (lambda _, stem, branch: stem + branch, nn.Sigmoid, []),
    "two branches": (lambda net, stem, branch: net.short(stem) + branch, PLAIN, ["short.1"]),
    "one tensor": (lambda _, stem, branch: branch + branch, PLAIN, []),
    "product": (lambda _, stem, branch: stem * branch, PLAIN, []),
    "pool": (lambda _, stem, branch: stem + nn.functional.max_pool2d(branch, 3, 1, 1), PLAIN, []),
    "read later": (later_reader, PLAIN, ["short.1"]),
    "read twice": (two_readers, PLAIN, ["short.1"]),
}


def made(name, runtime):
    join, end, wanted = NETWORKS[name]
    torch.manual_seed(0)
    images = 3 * torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    config = fw.QuantConfig(exact=True, weight_bits=7, runtime=runtime)
    return fw.quantize(trained_like(Branches(join, end())), images, config), images, wanted


@pytest.mark.parametrize("name", NETWORKS)
def test_one_branch_of_a_sum_is_not_rounded(name):
    quantized, _, wanted = made(name, "openvino")
    plan = plan_of(quantized)
    assert [site.partition("|")[0] for site in plan.unrounded] == wanted
    assert QuantizationPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "name", ["a branch", "ReLU before", "LeakyReLU before", "two branches", "read later"]
)
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_both_runtimes_compute_the_bits_of_pytorch(tmp_path, name):
    pytest.importorskip("openvino")
    quantized, images, _ = made(name, "openvino")
    # On ONNX Runtime, which is the default, and on the runtime of the plan.
    result = fw.export(
        quantized, tmp_path / "net.onnx", example=(images[:1],), compare_on=[(images[1:2],)]
    )
    assert max(result.max_error.values()) == 0


def test_onnxruntime_rounds_every_tensor():
    quantized, _, _ = made("a branch", "onnxruntime")
    assert plan_of(quantized).unrounded == ()
    assert plan_of(quantized).runtime == "onnxruntime"


def test_plans_of_earlier_versions_have_no_runtime():
    plan = plan_of(made("a branch", "openvino")[0])
    text = plan.to_json().replace('"runtime"', '"r"').replace('"unrounded"', '"u"')
    read = QuantizationPlan.from_json(text)
    assert (read.runtime, read.unrounded) == ("", ())


def test_an_unknown_runtime():
    with pytest.raises(ConfigError, match="A runtime must be one of onnxruntime, openvino"):
        fw.QuantConfig(exact=True, runtime="tensorrt")


def test_inputs_keep_the_bits_that_are_left_beside_the_zero_point():
    grid = Grid(2.0**-5, 128)
    above_a_tie = torch.tensor([0.5 * grid.scale * (1 + 2.0**-20), 3.25 * grid.scale])
    made = with_zero_added(above_a_tie, grid)
    assert torch.round(above_a_tie / grid.scale).tolist() == [1, 3]
    assert torch.round(made / grid.scale).tolist() == [0, 3]
    assert torch.equal(with_zero_added(made, grid), made)


ACTIVATIONS = {
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_and_its_activation_are_rounded_once(tmp_path, name):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = trained_like(nn.Sequential(block(3, 16, ACTIVATIONS[name]()), nn.Conv2d(16, 8, 3)))
    images = torch.randn(8, 3, 16, 16)
    config = fw.QuantConfig(weight_bits=7, runtime="openvino")
    small = fw.quantize(model, images, config)
    plan, path = plan_of(small), tmp_path / "net.onnx"
    assert plan.quantizers == ("args[0]", f"0.2.{name}", "1.conv2d")
    fw.export(small, path, example=(images[:1],), config=OnnxConfig(runtime="openvino"))
    require_integer(take_census(path, runtime="openvino"), plan)
    opened = runtime_by_name("openvino").open(path, OpenSettings())
    made = [next(iter(opened.run({"images": one[None].numpy()}).values())) for one in images]
    with torch.no_grad():
        wanted = small(images).numpy()
    levels = np.abs(np.concatenate(made) - wanted) / plan.grids["1.conv2d"].scale
    assert levels.max() < 1.5
    assert float((levels > 0.5).mean()) < 2e-3


@pytest.mark.parametrize("name", ["hardswish", "leaky_relu"])
def test_layers_with_their_activation_are_compared_and_rounded(name):
    torch.manual_seed(0)
    model = trained_like(nn.Sequential(block(3, 16, ACTIVATIONS[name]()), nn.Conv2d(16, 8, 3)))
    images = torch.randn(8, 3, 16, 16)
    small = fw.quantize(model, images, fw.QuantConfig(weight_bits=7, runtime="openvino"))
    assert all(0 < loss < 1e-2 for loss in layer_losses(model, small, images).values())
    with torch.no_grad():
        wanted = model(images)
    for rounded in (round_adaptively, reconstruct_blocks):
        found = rounded(model, small, images, AdaptiveRounding(steps=20))
        with torch.no_grad():
            assert float((found(images) - wanted).square().mean() / wanted.square().mean()) < 1e-2
