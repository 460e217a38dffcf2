import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.graph.example_inputs import Example
from flyweight.measuring.census import take_census
from flyweight.origin import Origin, note_origin, origin_of
from flyweight.quantization.network import plan_of
from flyweight.quantization.placement import place
from flyweight.quantization.rewriting import ShuffledConvolution, rewrite_, rewritten
from flyweight.quantization.sites import record_sites
from flyweight.transform_kinds import apply_transform, require_known


def whole(module):
    """Give a module weights of small integers: sums of these are exact in any order."""
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randint(-3, 4, tensor.shape))
    return module


def numbers(*shape):
    return torch.randint(-4, 5, shape).float()


class Decoder(nn.Module):
    """What UNet does at each level: upsample by a transposed convolution and concatenate."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Conv2d(7, 2, 3, padding=1)

    def forward(self, images):
        x = self.up(torch.relu(self.down(images)))
        return self.last(torch.cat([x, images], 1))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_every_bit_is_that_of_the_transposed_convolution(groups, bias, factor):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, factor, stride=factor, bias=bias, groups=groups)
    model = nn.Sequential(whole(layer)).eval()
    made = rewritten(model)
    assert isinstance(made[0], ShuffledConvolution)
    images = numbers(2, 4, 5, 7)
    assert torch.equal(made(images), model(images))
    assert isinstance(model[0], nn.ConvTranspose2d)


def test_real_weights_agree_to_the_order_of_additions():
    torch.manual_seed(0)
    model = Decoder().eval().double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert torch.allclose(rewritten(model)(images), model(images), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 4, 3, stride=2),
        nn.ConvTranspose2d(4, 4, 2, stride=2, padding=1),
        nn.ConvTranspose2d(4, 4, 2, stride=2, output_padding=1),
        nn.ConvTranspose2d(4, 4, 2, stride=2, dilation=2),
        nn.ConvTranspose2d(4, 4, (2, 3), stride=(2, 3)),
        nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 2, stride=2)),
    ],
)
def test_what_cannot_be_rewritten_stays(layer):
    assert not any(
        isinstance(one, ShuffledConvolution) for one in rewritten(nn.Sequential(layer)).modules()
    )


def test_weights_that_two_modules_share_stay_and_a_module_with_two_names_does_not():
    one, other = (nn.ConvTranspose2d(4, 4, 2, stride=2) for _ in range(2))
    other.weight = one.weight
    assert type(rewritten(nn.Sequential(one, other))[0]) is nn.ConvTranspose2d
    twice = rewritten(nn.Sequential(one, nn.ReLU(), one))
    assert isinstance(twice[0], ShuffledConvolution)
    assert twice[0] is twice[2]


def test_the_natural_output_size_alone_is_accepted():
    made = rewritten(nn.Sequential(nn.ConvTranspose2d(4, 4, 2, stride=2)))[0]
    images = torch.randn(1, 4, 3, 3)
    assert made(images, output_size=[6, 6]).shape == (1, 4, 6, 6)
    with pytest.raises(ValueError, match=r"must return maps of \[6, 6\]"):
        made(images, output_size=[7, 7])


def test_the_plan_says_so_and_makes_integers_of_it():
    torch.manual_seed(0)
    model, images = Decoder().eval(), torch.randn(4, 3, 16, 16)
    example = Example((images[:1],))
    reason = place(record_sites(model, example)).floats["up.conv_transpose2d"]
    assert "--rewrite makes a 1x1 convolution" in reason
    other = nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2)).eval()
    assert "--rewrite" not in place(record_sites(other, example)).floats["0.conv_transpose2d"]
    plan = plan_of(fw.quantize(rewritten(model), images))
    assert plan.floats == {}
    assert "up.conv2d" in {layer.operation for layer in plan.layers.values()}


def test_the_note_on_a_network_brings_it_back():
    torch.manual_seed(0)
    dense = Decoder().eval()
    note_origin(dense, Origin("decoder"))
    images = torch.randn(4, 3, 16, 16)
    small = fw.quantize(rewritten(dense), images)
    transforms = origin_of(small).transforms
    assert [one.kind for one in transforms] == ["rewrite", "quantize"]
    again = Decoder().eval()
    for transform in require_known(transforms, "a file"):
        apply_transform(again, transform)
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images), small(images))


def test_a_place_that_holds_something_else_is_named():
    with pytest.raises(PlanError, match="Received '0' with a stride of 2"):
        rewrite_(nn.Sequential(nn.Conv2d(3, 3, 1)), {"0": 2})


@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_both_runtimes_run_it_on_integers(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 16, 16)
    small = fw.quantize(rewritten(Decoder().eval()), images, fw.QuantConfig(weight_bits=7))
    fw.export(small, tmp_path / "net.onnx", example=(images[:1],))
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        census = take_census(tmp_path / "net.onnx", runtime=runtime)
        assert [one.precision for one in census.layers] == ["int8"] * 3, runtime
