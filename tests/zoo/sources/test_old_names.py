import pytest
import torch

from flyweight import zoo
from flyweight.zoo.sources.old_names import old_name, old_names


def names(model="yolov3_mobilenet_v1"):
    with torch.device("meta"):
        return list(zoo.create(model).state_dict())


# One file per variable was written in 2020, biases and statistics included: section 3c of the cost
# accounting.
@pytest.mark.parametrize(
    ("model", "count"), [("yolov3_mobilenet_v1", 241), ("yolov3_r50vd_dcn", 387)]
)
def test_every_value_has_one_old_name(model, count):
    ours = [name for name in names(model) if not name.endswith("num_batches_tracked")]
    table = old_names(names(model))
    assert len(table) == len(ours) == count
    assert sorted(table.values()) == sorted(ours)


def test_spellings_are_paddledetections():
    table = old_names(names())
    expected = {
        "conv1_weights": "backbone.conv1.conv.weight",
        "conv1_bn_scale": "backbone.conv1.bn.weight",
        "conv2_1_dw_weights": "backbone.conv2_1.dw.conv.weight",
        "conv2_1_sep_weights": "backbone.conv2_1.sep.conv.weight",
        "conv5_6_dw_bn_offset": "backbone.conv5_6.dw.bn.bias",
        "conv6_sep_bn_mean": "backbone.conv6.sep.bn.running_mean",
        "conv6_sep_bn_variance": "backbone.conv6.sep.bn.running_var",
        "yolo_block.0.0.0.conv.weights": "yolo_block.0.0.0.conv.weight",
        "yolo_block.2.tip.bn.scale": "yolo_block.2.tip.bn.weight",
        "yolo_block.2.tip.bn.offset": "yolo_block.2.tip.bn.bias",
        "yolo_block.1.2.bn.mean": "yolo_block.1.2.bn.running_mean",
        "yolo_transition.1.bn.var": "yolo_transition.1.bn.running_var",
        "yolo_output.0.conv.weights": "yolo_output.0.conv.weight",
        "yolo_output.0.conv.bias": "yolo_output.0.conv.bias",
    }
    assert {old: table.get(old) for old in expected} == expected


def test_spellings_of_resnets():
    table = old_names(names("yolov3_r50vd_dcn")) | old_names(names("yolov3_r34"))
    expected = {
        "conv1_weights": "backbone.stem.conv1.conv.weight",
        "bn_conv1_scale": "backbone.stem.conv1.bn.weight",
        "conv1_2_weights": "backbone.stem.conv1_2.conv.weight",
        "bnv1_2_variance": "backbone.stem.conv1_2.bn.running_var",
        "res2a_branch1_weights": "backbone.res2a.branch1.conv.weight",
        "bn2a_branch1_offset": "backbone.res2a.branch1.bn.bias",
        "res4f_branch2b_weights": "backbone.res4f.branch2b.conv.weight",
        "res5c_branch2c_weights": "backbone.res5c.branch2c.conv.weight",
        "bn5c_branch2c_mean": "backbone.res5c.branch2c.bn.running_mean",
        "res5a_branch2b_conv_offset.w_0": "backbone.res5a.branch2b.offset.weight",
        "res5a_branch2b_conv_offset.b_0": "backbone.res5a.branch2b.offset.bias",
        "yolo_block.0.0.0.conv.weights": "yolo_block.0.0.0.conv.weight",
    }
    assert {old: table.get(old) for old in expected} == expected


def test_spellings_of_mobilenet_v3():
    table = old_names(names("yolov3_mobilenet_v3"))
    expected = {
        "conv1_bn_scale": "backbone.conv1.bn.weight",
        "conv13_expand_weights": "backbone.conv13.expand.conv.weight",
        "conv13_depthwise_bn_mean": "backbone.conv13.depthwise.bn.running_mean",
        "conv13_se_1_weights": "backbone.conv13.se_1.weight",
        "conv13_se_2_offset": "backbone.conv13.se_2.bias",
        "conv16_linear_weights": "backbone.conv16.linear.conv.weight",
    }
    assert {old: table.get(old) for old in expected} == expected


def test_spellings_of_ssdlite():
    table = old_names(names("ssdlite_mobilenet_v3_small"))
    expected = {
        "conv10_expand_weights": "backbone.conv10.expand.conv.weight",
        "conv13_weights": "backbone.conv13.conv.weight",
        "conv13_bn_offset": "backbone.conv13.bn.bias",
        "conv14_extra1_weights": "backbone.conv14.extra1.conv.weight",
        "conv14_extra2_dw_bn_scale": "backbone.conv14.extra2_dw.bn.weight",
        "conv17_extra2_sep_weights": "backbone.conv17.extra2_sep.conv.weight",
        "loc_1dw_weights": "loc.1.dw.conv.weight",
        "loc_1_bn_scale": "loc.1.dw.bn.weight",
        "conf_6pw_weights": "conf.6.pw.weight",
        "conf_6_bn_variance": "conf.6.dw.bn.running_var",
    }
    assert {old: table.get(old) for old in expected} == expected
    ours = [name for name in table.values() if "num_batches" not in name]
    values = [name for name in names("ssdlite_mobilenet_v3_small") if "num_batches" not in name]
    assert sorted(ours) == sorted(values)


def test_spellings_of_blazeface():
    table = old_names([*names("blazeface"), *names("blazeface_lite")])
    expected = {
        "blaze_01_dw_weights": "backbone.blaze_0.first.dw.conv.weight",
        "blaze_41_sep_weights": "backbone.blaze_4.first.sep.conv.weight",
        "shortcutblaze_2_weights": "backbone.blaze_2.shortcut.conv.weight",
        "double_blaze_02_dw_weights": "backbone.double_blaze_0.second.dw.conv.weight",
        "double_blaze_51_sep_weights": "backbone.double_blaze_5.first.sep.conv.weight",
        "shortcutdouble_blaze_3_weights": "backbone.double_blaze_3.shortcut.conv.weight",
        "conv17_dw_weights": "backbone.conv17.dw.conv.weight",
        "shortcutconv3_weights": "backbone.conv3.shortcut.conv.weight",
    }
    assert {old: table.get(old) for old in expected} == expected


def test_what_had_no_old_name():
    assert old_name("backbone.conv1.bn.num_batches_tracked") is None
    assert old_name("yolo_block.0.2.bn.num_batches_tracked") is None
    assert old_name("weight") is None
