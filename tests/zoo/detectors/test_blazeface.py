import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight import zoo
from flyweight.zoo.detectors.blazeface import (
    NAS,
    ORIGINAL,
    BlazeBlock,
    LiteBlock,
    blaze_net,
    lite_net,
)


def randomised(block):
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
    return block.eval()


def normed(values, images, path, *, act=True, **keywords):
    images = functional.conv2d(images, values[f"{path}.conv.weight"], **keywords)
    names = ("running_mean", "running_var", "weight", "bias")
    images = functional.batch_norm(images, *(values[f"{path}.bn.{name}"] for name in names))
    return images.clamp(min=0) if act else images


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: blaze_net(ORIGINAL), (96, 96)),
        (lambda: blaze_net(NAS), (24, 72)),
        (lite_net, (88, 96)),
    ],
)
@pytest.mark.parametrize("side", [64, 75])
def test_maps_lie_at_stride_8_and_16(build, channels, side):
    with torch.device("meta"):
        backbone = build().eval()
        maps = backbone(torch.empty(1, 3, side, side))
    assert backbone.channels == channels
    assert [tuple(level.shape[1:]) for level in maps] == [
        (channels[0], -(-side // 8), -(-side // 8)),
        (channels[1], -(-side // 16), -(-side // 16)),
    ]


def test_a_single_block_has_no_activation_before_the_sum():
    torch.manual_seed(0)
    block = randomised(BlazeBlock(4, 4, stride=1, kernel_size=5))
    values, images = block.state_dict(), torch.randn(2, 4, 7, 7)
    wide = normed(values, images, "first.dw", padding=2, groups=4)
    wanted = (images + normed(values, wide, "first.sep", act=False)).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(block(images), wanted)


@pytest.mark.parametrize("side", [6, 7])
def test_a_double_block_has_a_dense_second_layer_and_activations_everywhere(side):
    torch.manual_seed(0)
    block = randomised(BlazeBlock(4, 3, 6, stride=2, kernel_size=5))
    values, images = block.state_dict(), torch.randn(2, 4, side, side)
    assert values["second.dw.conv.weight"].shape == (3, 3, 5, 5)
    current = normed(values, images, "first.dw", padding=2, groups=4, stride=2)
    current = normed(values, current, "first.sep")
    current = normed(values, current, "second.dw", padding=2)
    current = normed(values, current, "second.sep")
    # The pooling windows hang over the edge of an odd side.
    padded = functional.pad(images, (0, side % 2, 0, side % 2), value=-torch.inf)
    pooled = padded.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    wanted = (normed(values, pooled, "shortcut") + current).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(block(images), wanted)


def test_with_two_small_kernels_both_pairs_are_depthwise():
    torch.manual_seed(0)
    block = randomised(BlazeBlock(4, 3, 6, stride=2, kernel_size=3))
    values, images = block.state_dict(), torch.randn(1, 4, 6, 6)
    current = normed(values, images, "first.dw_1", padding=1, groups=4)
    current = normed(values, current, "first.dw_2", padding=1, groups=4, stride=2)
    current = normed(values, current, "first.sep")
    current = normed(values, current, "second.dw_1", padding=1, groups=3)
    current = normed(values, current, "second.dw_2", padding=1, groups=3)
    current = normed(values, current, "second.sep")
    pooled = images.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    wanted = (normed(values, pooled, "shortcut") + current).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(block(images), wanted)


@pytest.mark.parametrize(("channels", "stride"), [(5, 1), (4, 1), (5, 2)])
def test_a_lite_block(channels, stride):
    torch.manual_seed(0)
    block = randomised(LiteBlock(4, channels, stride=stride))
    values, images = block.state_dict(), torch.randn(1, 4, 6, 6)
    current = normed(values, images, "dw", padding=1, groups=4, stride=stride)
    current = normed(values, current, "sep")
    past = images if stride == 1 else images.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    past = normed(values, past, "shortcut") if channels != 4 else past
    with torch.no_grad():
        torch.testing.assert_close(block(images), (past + current).clamp(min=0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("blazeface", {}),
        ("blazeface_lite", {}),
        ("blazeface_nas", {"kernel_size": 3}),
        ("blazeface_nas_v2", {}),
    ],
)
def test_everything_but_the_outputs_is_cut_exactly(cut_in_half, name, options):
    torch.manual_seed(0)
    _, small = cut_in_half(zoo.create(name, **options), side=32)
    assert small.conf["2"].out_channels == 12
