import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight.zoo.backbones.mobilenet_v3 import FPN_TAPS, MobileNetV3


def build(*args, **keywords):
    with torch.device("meta"):
        return MobileNetV3(*args, **keywords).eval()


def shapes(model, side=64):
    with torch.device("meta"):
        return [tuple(level.shape[1:]) for level in model(torch.empty(1, 3, side, side))]


def convolution_values(model):
    return sum(value.numel() for value in model.parameters() if value.ndim == 4)


def test_taps_of_a_detector_with_one_head():
    backbone = build()
    assert backbone.channels == (40, 112, 160)
    assert shapes(backbone) == [(40, 8, 8), (112, 4, 4), (160, 2, 2)]


def test_convolutions_have_the_originals_values():
    # Section 6 of the cost accounting; torchvision and timm have 2,942,472.
    assert convolution_values(build()) == 2_787_304


def test_taps_of_the_pyramid_and_nothing_behind_them():
    backbone = build(taps=FPN_TAPS)
    assert backbone.channels == (72, 240, 672)
    assert shapes(backbone) == [(72, 16, 16), (240, 8, 8), (672, 4, 4)]
    last = [name for name in backbone.state_dict() if name.startswith("conv14")]
    assert {name.split(".")[1] for name in last} == {"expand"}
    assert not [name for name in backbone.state_dict() if name.startswith(("conv15", "conv16"))]
    whole = MobileNetV3(taps=(*FPN_TAPS, "conv16")).eval()
    cut = MobileNetV3(taps=FPN_TAPS).eval()
    cut.load_state_dict(
        {name: value for name, value in whole.state_dict().items() if name in cut.state_dict()}
    )
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(cut(images), whole(images), strict=False):
            assert torch.equal(mine, theirs)


def test_the_squeeze_is_a_quarter_rounded_down():
    backbone = build()
    squeezes = [value.shape[0] for name, value in backbone.named_parameters() if "se_1.w" in name]
    assert squeezes == [18, 30, 30, 120, 168, 168, 240, 240]


@pytest.mark.parametrize(
    ("size", "last", "expanded"),
    [
        ("large", ("conv14.expand", "conv16"), [(672, 4, 4), (80, 2, 2)]),
        ("small", ("conv10.expand", "conv12"), [(288, 4, 4), (48, 2, 2)]),
    ],
)
def test_the_multiplier_halves_the_last_blocks(size, last, expanded):
    backbone = build(size, multiplier=0.5, taps=last)
    assert shapes(backbone) == expanded
    final = backbone.get_submodule(last[1])
    assert (
        final.expand.conv.out_channels
        == build(size, taps=last).get_submodule(last[1]).expand.conv.out_channels // 2
    )


def test_a_narrow_network_keeps_its_shape():
    assert shapes(build(width=0.25)) == [(16, 8, 8), (32, 4, 4), (40, 2, 2)]


def normed(values, images, path, **keywords):
    images = functional.conv2d(images, values[f"{path}.conv.weight"], **keywords)
    names = ("running_mean", "running_var", "weight", "bias")
    return functional.batch_norm(images, *(values[f"{path}.bn.{name}"] for name in names))


def test_a_block_is_the_originals():
    torch.manual_seed(0)
    backbone = MobileNetV3(taps=("conv6",)).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    block, values = backbone.get_submodule("conv6"), dict(backbone.state_dict())
    images = torch.randn(2, 40, 9, 9)
    expanded = normed(values, images, "conv6.expand").clamp(min=0)
    wide = normed(values, expanded, "conv6.depthwise", padding=2, groups=120).clamp(min=0)
    weights = {name: values[f"conv6.{name}"].flatten(1) for name in ("se_1.weight", "se_2.weight")}
    hidden = wide.mean((2, 3)) @ weights["se_1.weight"].T + values["conv6.se_1.bias"]
    logits = hidden.clamp(min=0) @ weights["se_2.weight"].T + values["conv6.se_2.bias"]
    gate = torch.minimum(torch.maximum(logits / 5 + 0.5, torch.zeros(())), torch.ones(()))
    assert 0 < ((gate > 0) & (gate < 1)).float().mean() < 1
    wanted = images + normed(values, wide * gate[..., None, None], "conv6.linear")
    with torch.no_grad():
        found = block(images)
    torch.testing.assert_close(found, (expanded, wanted), rtol=1e-4, atol=1e-5)


def test_activations_follow_the_table():
    backbone = build(taps=("conv16",))
    kinds = [type(backbone.get_submodule(name).depthwise.activation) for name in backbone.names]
    assert kinds == [nn.ReLU] * 6 + [nn.Hardswish] * 9
    assert isinstance(backbone.conv1.activation, nn.Hardswish)
