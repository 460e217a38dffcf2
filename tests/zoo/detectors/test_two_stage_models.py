import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import rpn
from torchvision.ops import FrozenBatchNorm2d

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.graph import trace
from flyweight.pruning import plan
from flyweight.zoo.detectors.two_stage_models import ROWS
from flyweight.zoo.sources.old_names import old_names

NAMES = [row.name for row in ROWS]


def weightless(name, **arguments):
    with torch.device("meta"):
        return zoo.create(name, **arguments).eval()


def count(model):
    return sum(value.numel() for value in model.parameters())


def resnet_without_norms():
    model = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    return {name: count(part) for name, part in model.named_children()}


def test_values_are_those_of_torchvisions_parts():
    model = weightless("faster_rcnn_r50")
    parts = resnet_without_norms()
    assert count(model.backbone) == sum(parts[f"layer{i}"] for i in (1, 2, 3)) + parts["conv1"]
    assert count(model.heads[0].body) == parts["layer4"]
    assert count(model.rpn) == count(rpn.RPNHead(1024, 15))
    head = torchvision.models.detection.faster_rcnn.FastRCNNPredictor(2048, 81)
    # The originals' background has a box of its own, which nothing reads.
    assert count(model.heads) == parts["layer4"] + count(head) - 4 * (2048 + 1)
    masked = weightless("mask_rcnn_r50")
    mask_head = torchvision.models.detection.mask_rcnn.MaskRCNNPredictor(2048, 256, 80)
    assert count(masked) - count(model) == count(mask_head)


def test_the_cascade_has_the_originals_shapes():
    model = weightless("cascade_rcnn_mobilenet_v3_320")
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for level, width in ((2, 72), (3, 240), (4, 672)):
        assert shapes[f"neck.lateral.{level}.weight"] == (48, width, 1, 1)
        assert shapes[f"neck.output.{level}.weight"] == (48, 48, 3, 3)
    assert shapes["neck.extra.5.weight"] == (48, 672, 3, 3)
    assert shapes["neck.extra.6.weight"] == (48, 48, 3, 3)
    assert shapes["rpn.conv_rpn.weight"] == (48, 48, 3, 3)
    assert shapes["rpn.rpn_cls_logits.weight"] == (3, 48, 1, 1)
    for stage in range(3):
        assert shapes[f"heads.{stage}.body.fc6.weight"] == (128, 48 * 49)
        assert shapes[f"heads.{stage}.body.fc7.weight"] == (128, 128)
        assert shapes[f"heads.{stage}.cls_score.weight"] == (81, 128)
        assert shapes[f"heads.{stage}.bbox_pred.weight"] == (4, 128)
    last = max(int(name.split(".")[1][4:]) for name in shapes if name.startswith("backbone"))
    assert last == 14
    geometry = model.geometry
    assert [level.sizes for level in geometry.levels] == [(16,), (32,), (64,), (128,), (256,)]
    larger = weightless("cascade_rcnn_mobilenet_v3_640").geometry
    assert [level.sizes for level in larger.levels] == [(24,), (48,), (96,), (192,), (384,)]
    assert [stage.overlap for stage in geometry.stages] == [0.5, 0.6, 0.7]
    assert [stage.weights[0] for stage in geometry.stages] == [10, 20, 30]
    assert [stage.share for stage in geometry.stages] == [1, 0.5, 0.25]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("name", "width"), [("mask_rcnn_r50", 0.125), ("cascade_rcnn_mobilenet_v3_320", 0.25)]
)
def test_macs_agree_with_fvcore(name, width):
    from fvcore.nn import FlopCountAnalysis

    model = zoo.create(name, num_classes=3, width=width, proposals=7, freeze_norm=False).eval()
    images = torch.zeros(1, 3, 64, 96)
    analysis = FlopCountAnalysis(model, images)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_operator()
    theirs = counted["conv"] + counted["linear"] + counted.get("addmm", 0)
    assert trace(model, (images,)).cost().macs == theirs


def test_names_are_the_originals():
    faster = old_names(weightless("mask_rcnn_r50").state_dict())
    expected = {
        "res4f_branch2a_weights": "backbone.res4f.branch2a.conv.weight",
        "res4f_branch2b_weights": "backbone.res4f.branch2b.conv.weight",
        "bn4f_branch2b_scale": "backbone.res4f.branch2b.bn.weight",
        "res5a_branch1_weights": "heads.0.body.res5a.branch1.conv.weight",
        "bn5c_branch2c_offset": "heads.0.body.res5c.branch2c.bn.bias",
        "conv_rpn_w": "rpn.conv_rpn.weight",
        "rpn_bbox_pred_b": "rpn.rpn_bbox_pred.bias",
        "cls_score_w": "heads.0.cls_score.weight",
        "conv5_mask_w": "mask_head.conv5_mask.weight",
        "mask_fcn_logits_b": "mask_head.mask_fcn_logits.bias",
    }
    assert expected.items() <= faster.items()
    state = weightless("cascade_rcnn_mobilenet_v3_320").state_dict()
    cascade = old_names(state)
    expected = {
        "conv14_expand_weights": "backbone.conv14.expand.conv.weight",
        "fpn_inner_res4_sum_w": "neck.lateral.4.weight",
        "fpn_inner_res3_sum_lateral_b": "neck.lateral.3.bias",
        "fpn_res2_sum_w": "neck.output.2.weight",
        "fpn_6_w": "neck.extra.6.weight",
        "fc6_w": "heads.0.body.fc6.weight",
        "fc7_2_b": "heads.1.body.fc7.bias",
        "cls_score_3_w": "heads.2.cls_score.weight",
    }
    assert expected.items() <= cascade.items()
    assert len(cascade) == len(state)


def test_the_demonstration_s_parameters_are_cut():
    with torch.device("meta"):
        model = zoo.create("faster_rcnn_r50", width=0.25, proposals=10)
    graph = trace(model, (torch.empty(1, 3, 64, 64, device="meta"),))
    ratios = {"res4f_branch2b_weights": 0.3, "res4f_branch2a_weights": 0.4}
    made = plan(graph, ratios, "first", aliases=old_names(graph.tensors))
    kept = {name: len(group.keep) for name, group in made.groups.items()}
    assert kept == {
        "backbone.res4f.branch2b.conv.weight": 64 - round(64 * 0.3),
        "backbone.res4f.branch2a.conv.weight": 64 - round(64 * 0.4),
    }


def test_what_is_frozen():
    model = zoo.create("faster_rcnn_r50", width=0.125)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert all("stem" in name or ".res2" in name for name in frozen)
    assert len(frozen) == 1 + 3 * 3 + 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    free = zoo.create("faster_rcnn_r50", width=0.125, freeze_norm=False, freeze_at=0)
    assert all(value.requires_grad for value in free.parameters())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in free.modules())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "arguments", [{"num_classes": 0}, {"width": 0}, {"proposals": 0}, {"samples": True}]
)
def test_arguments_that_cannot_be_meant(name, arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        zoo.create(name, **arguments)
