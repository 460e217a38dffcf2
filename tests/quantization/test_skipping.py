import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.quantization.network import plan_of
from flyweight.quantization.skipping import SCOPES, skipped

NAMES = (
    "backbone.conv1.conv.conv2d",
    "backbone.conv2.depthwise.conv.conv2d",
    "yolo_output.0.conv.conv2d",
)


def test_parts_of_names_patterns_and_scopes():
    assert skipped(["conv1"], NAMES) == {NAMES[0]}
    assert skipped(["backbone.*"], NAMES) == set(NAMES[:2])
    assert skipped(["yolo_output", "res_conv1"], NAMES) == set(NAMES[1:])
    assert skipped([], NAMES) == frozenset()


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(
        PlanError, match=r"'yolo_outputs', which matches none of 3\. Nearest: 'yolo_"
    ):
        skipped(["yolo_outputs"], NAMES)


@pytest.mark.parametrize(
    ("network", "scope", "count"),
    [
        ("ssdlite_mobilenet_v3_small", "res_conv1", 11),
        ("ssdlite_mobilenet_v3_small", "se_block", 18),
        ("yolov3_mobilenet_v1", "yolo_output", 3),
    ],
)
def test_scopes_of_the_original_tools_name_layers_of_the_zoo(network, scope, count):
    model = fw.create(network, num_classes=3)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert len(skipped([scope], names)) == count


def test_skipped_layers_stay_float():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    small = fw.quantize(model, torch.randn(2, 3, 8, 8), fw.QuantConfig(skip=("2",)))
    plan = plan_of(small)
    assert plan.floats == {"2.conv2d": "named by the option to skip"}
    assert sorted(SCOPES) == ["res_conv1", "se_block", "yolo_output"]
