import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight import zoo
from flyweight.zoo.detectors.ssd import SSDLITE_GEOMETRY, SsdLiteBackbone, prior_shapes


def shapes(model, side):
    with torch.device("meta"):
        return [tuple(level.shape[1:]) for level in model(torch.empty(1, 3, side, side))]


@pytest.mark.parametrize(("size", "first"), [("large", (672, 480)), ("small", (288, 288))])
def test_maps_are_the_originals(size, first):
    with torch.device("meta"):
        backbone = SsdLiteBackbone(size).eval()
    channels = (*first, 512, 256, 256, 128)
    assert backbone.channels == channels
    sides = (20, 10, 5, 3, 2, 1)
    assert shapes(backbone, 320) == [
        (count, side, side) for count, side in zip(channels, sides, strict=True)
    ]


def test_sizes_of_priors_are_the_originals():
    squares = [(level.shapes[0][0], level.shapes[-1][0]) for level in SSDLITE_GEOMETRY.levels]
    smallest = [32, 64, 121.6, 179.2, 236.8, 294.4]
    largest = [64, 121.6, 179.2, 236.8, 294.4, 352]
    assert [low for low, _ in squares] == pytest.approx(smallest)
    between = [(low * high) ** 0.5 for low, high in zip(smallest, largest, strict=True)]
    assert [side for _, side in squares] == pytest.approx(between)
    assert [level.step for level in SSDLITE_GEOMETRY.levels] == [16, 32, 64, 107, 160, 320]
    assert [len(level.shapes) for level in SSDLITE_GEOMETRY.levels] == [4, 6, 6, 6, 6, 6]


def test_priors_of_a_cell_come_in_the_originals_order():
    found = prior_shapes(60, 90, (2.0, 3.0))
    ratios = [1, 2, 1 / 2, 3, 1 / 3, 1]
    assert [width / height for width, height in found] == pytest.approx(ratios)
    areas = [width * height for width, height in found]
    assert areas == pytest.approx([3600] * 5 + [5400])


@pytest.mark.parametrize("side", [1, 2, 3, 5, 10, 11])
def test_blocks_behind_the_backbone_pad_as_tensorflow(side):
    torch.manual_seed(0)
    backbone = SsdLiteBackbone("small", width=0.1).eval()
    layer = backbone.get_submodule("conv14").extra2_dw
    images = torch.randn(1, layer.conv.in_channels, side, side)
    # Where each kernel starts, by the definition: outputs are ceil(side / 2), padding is what is
    # missing, and of an odd padding the larger half comes after.
    missing = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
    before = missing // 2
    after = missing - before
    padded = functional.pad(images, (before, after, before, after))
    rows = []
    for row in range(0, padded.shape[-1] - 2, 2):
        patches = [
            padded[..., row : row + 3, col : col + 3] for col in range(0, padded.shape[-1] - 2, 2)
        ]
        values = [
            functional.conv2d(p, layer.conv.weight, groups=layer.conv.groups) for p in patches
        ]
        rows.append(torch.cat(values, dim=3))
    wanted = torch.cat(rows, dim=2)
    assert wanted.shape[-1] == -(-side // 2)
    with torch.no_grad():
        torch.testing.assert_close(layer(images), functional.relu6(layer.bn(wanted)))


def test_depthwise_layers_behind_the_backbone_make_two_channels_of_one():
    with torch.device("meta"):
        backbone = SsdLiteBackbone("large")
    layer = backbone.get_submodule("conv18").extra2_dw.conv
    assert (layer.in_channels, layer.out_channels, layer.groups) == (256, 512, 256)


def test_heads_are_separable_without_bias():
    with torch.device("meta"):
        model = zoo.create("ssdlite_mobilenet_v3_small", num_classes=4)
    for head, each in ((model.loc, 4), (model.conf, 5)):
        assert list(head) == ["1", "2", "3", "4", "5", "6"]
        assert [part.pw.out_channels for part in head.values()] == [4 * each] + [6 * each] * 5
        assert all(part.pw.bias is None for part in head.values())
        assert all(part.dw.conv.groups == part.dw.conv.in_channels for part in head.values())
        assert isinstance(head["1"].dw.activation, nn.ReLU6)


def test_outputs_are_offsets_and_classes_in_turn():
    torch.manual_seed(0)
    model = zoo.create("ssdlite_mobilenet_v3_small", num_classes=3, width=0.1).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 64, 64))
    sides = (4, 2, 1, 1, 1, 1)
    counts = (4, 6, 6, 6, 6, 6)
    expected = []
    for side, count in zip(sides, counts, strict=True):
        expected += [(2, 4 * count, side, side), (2, 4 * count, side, side)]
    assert [tuple(level.shape) for level in maps] == expected
    # Fresh heads prefer no class and move no prior far.
    assert max(level.abs().max() for level in maps) < 3


def test_everything_but_the_outputs_is_cut_exactly(cut_in_half):
    torch.manual_seed(0)
    model = zoo.create("ssdlite_mobilenet_v3_small", num_classes=2, width=0.25)
    _, small = cut_in_half(model, side=64)
    layer = small.backbone.get_submodule("conv14").extra2_dw.conv
    assert layer.out_channels == 2 * layer.in_channels == 2 * layer.groups
    assert small.loc["1"].pw.out_channels == 16
