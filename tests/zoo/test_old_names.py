import torch

from flyweight import zoo
from flyweight.zoo.old_names import old_name, old_names


def names():
    with torch.device("meta"):
        return list(zoo.create("yolov3_mobilenet_v1").state_dict())


def test_every_value_has_one_old_name():
    ours = [name for name in names() if not name.endswith("num_batches_tracked")]
    table = old_names(names())
    assert len(table) == len(ours) == 241
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


def test_what_had_no_old_name():
    assert old_name("backbone.conv1.bn.num_batches_tracked") is None
    assert old_name("yolo_block.0.2.bn.num_batches_tracked") is None
    assert old_name("weight") is None
