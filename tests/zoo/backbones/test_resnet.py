import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from flyweight.zoo.backbones.resnet import DeformableConvNormActivation, ResNet, make_stage
from flyweight.zoo.detectors.yolo import YOLOv3
from flyweight.zoo.sources.weights import fill


def build(*args, **keywords):
    with torch.device("meta"):
        return ResNet(*args, **keywords).eval()


def shapes(model, side=64):
    with torch.device("meta"):
        return [tuple(level.shape[1:]) for level in model(torch.empty(1, 3, side, side))]


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [((34, "b"), (128, 256, 512)), ((50, "b"), (512, 1024, 2048)), ((50, "d"), (512, 1024, 2048))],
)
def test_maps(arguments, channels):
    backbone = build(*arguments)
    assert backbone.channels == channels
    assert shapes(backbone) == [(channels[i], 8 >> i, 8 >> i) for i in range(3)]


def test_convolutions_have_the_originals_values():
    def convolutions(model):
        return sum(value.numel() for value in model.parameters() if value.ndim == 4)

    # timm's resnet50d, section 6 of the cost accounting; and three branches that steer.
    assert convolutions(build(50, "d")) == 23_474_016
    steering = 3 * 27 * 512 * 9
    assert convolutions(build(50, "d", deformable=(5,))) == 23_474_016 + steering
    # torchvision's ResNet-34 has no projection in stage 2.
    plain = convolutions(torchvision.models.resnet34(weights=None))
    assert convolutions(build(34, "b")) == plain + 64 * 64


def settle(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 5, 20)
            nn.init.normal_(module.running_mean)


def assert_equal_maps(ours, theirs):
    images = torch.randn(1, 3, 75, 64)
    with torch.no_grad():
        found, wanted = ours.eval()(images)[-1], theirs(images)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.std() > 1e-3


def test_variant_b_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    settle(theirs)
    ours = ResNet(50, "b", taps=(3, 4))
    assert fill(ours, theirs.state_dict(), "torchvision").complete
    stages = (theirs.conv1, theirs.bn1, theirs.relu, theirs.maxpool, theirs.layer1, theirs.layer2)
    assert_equal_maps(ours, nn.Sequential(*stages, theirs.layer3))


def test_variant_d_is_timms():
    from timm.models.resnet import resnet50d

    torch.manual_seed(0)
    theirs = resnet50d(num_classes=0).eval()
    settle(theirs)
    ours = ResNet(50, "d", taps=(4,))
    assert fill(ours, theirs.state_dict(), "timm").complete
    stages = (theirs.conv1, theirs.bn1, theirs.act1, theirs.maxpool, theirs.layer1, theirs.layer2)
    assert_equal_maps(ours, nn.Sequential(*stages, theirs.layer3))


def taken(detector, theirs):
    account = fill(detector, theirs.state_dict(), "a library", what="backbone")
    assert not account.mismatched
    return account


def test_a_detector_takes_all_of_a_librarys_backbone_that_it_has():
    account = taken(YOLOv3(ResNet(34), 2), torchvision.models.resnet34(weights=None))
    assert {name.split(".")[-1] for name in account.unused} == {"weight", "bias"}
    assert all("fc" in name for name in account.unused)
    assert all(name.startswith("backbone.res2a.branch1.") for name in account.missing)
    assert len(account.missing) == 5

    from timm.models.resnet import resnet50d

    account = taken(YOLOv3(ResNet(50, "d", deformable=(5,)), 2), resnet50d(num_classes=0))
    assert {name.split(".")[-2] for name in account.missing} == {"offset"}
    assert len(account.missing) == 6


def test_variant_a_halves_in_the_first_layer():
    first = build(50, "a").get_submodule("res3a")
    assert first.branch2a.conv.stride == (2, 2)
    assert first.branch2b.conv.stride == (1, 1)
    with pytest.raises(AttributeError):
        build(50, "a", taps=(3,)).get_submodule("res4a")


def test_a_basic_block_projects_at_the_first_of_stage_2_only():
    projected = {name for name, _ in build(34).named_modules() if name.endswith("branch1")}
    assert projected == {f"res{number}a.branch1" for number in (2, 3, 4, 5)}


def test_a_stage_alone_is_the_end_of_the_whole():
    whole = build(50, "b", width=0.25)
    stage = make_stage(5, 256, depth=50, variant="b", width=0.25)
    assert [
        value.shape
        for name in whole.stages[5]
        for value in whole.get_submodule(name).state_dict().values()
    ] == [value.shape for block in stage.values() for value in block.state_dict().values()]


def test_a_fresh_deformable_layer_is_half_an_ordinary_one():
    torch.manual_seed(0)
    backbone = ResNet(50, "d", width=0.1, deformable=(5,)).eval()
    layer = backbone.get_submodule("res5a").branch2b
    assert isinstance(layer, DeformableConvNormActivation)
    assert layer.conv.bias is None
    assert not layer.offset.weight.any()
    assert not layer.offset.bias.any()
    images = torch.randn(2, layer.conv.in_channels, 7, 6)
    with torch.no_grad():
        wanted = functional.conv2d(images, layer.conv.weight, stride=2, padding=1) / 2
        torch.testing.assert_close(layer(images), layer.bn(wanted).relu())


def test_the_offset_branch_says_rows_then_columns_then_masks():
    torch.manual_seed(0)
    layer = DeformableConvNormActivation(2, 3).eval()
    images = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        nn.init.zeros_(layer.offset.weight)
        layer.offset.bias[0:18:2] = 1  # every sample one row down
        layer.offset.bias[1:18:2] = -2  # and two columns to the left
        layer.offset.bias[18:] = 100  # counting fully
        moved = functional.pad(images, (2, 0, 0, 1))[:, :, 1:, :-2]
        wanted = functional.conv2d(moved, layer.conv.weight, padding=1)
        inner = (..., slice(1, -2), slice(3, -1))
        torch.testing.assert_close(layer(images)[inner], layer.bn(wanted).relu()[inner])


def test_names_are_the_originals_without_their_endings():
    names = build(50, "d", deformable=(5,)).state_dict().keys()
    for name in ("stem.conv1_2.bn.bias", "res2a.branch1.conv.weight", "res4f.branch2b.conv.weight"):
        assert name in names
    assert "res5c.branch2b.offset.weight" in names
    assert "res4a.branch2b.offset.weight" not in names


def test_deformable_layers_are_pruned_with_what_steers_them(cut_in_half):
    torch.manual_seed(0)
    backbone = ResNet(50, "d", width=0.125, deformable=(5,))
    for module in backbone.modules():
        if isinstance(module, DeformableConvNormActivation):
            nn.init.normal_(module.offset.weight, std=0.02)
            nn.init.normal_(module.offset.bias)
    steered = "steers a deformable convolution"
    model = YOLOv3(backbone, 2, width=0.125)
    graph, small = cut_in_half(model, side=96, frozen=("is an output of the model", steered))
    for letter in "abc":
        before = model.backbone.get_submodule(f"res5{letter}").branch2b
        after = small.backbone.get_submodule(f"res5{letter}").branch2b
        assert after.conv.weight.shape[:2] == (32, 32)
        assert before.conv.weight.shape[:2] == (64, 64)
        assert after.offset.weight.shape[:2] == (27, 32)
        assert after.conv.in_channels == after.conv.out_channels == 32
    steering = [
        group.size for group in graph.groups.values() if group.reason and steered in group.reason
    ]
    assert sorted(steering) == [9, 9, 9, 18, 18, 18]
