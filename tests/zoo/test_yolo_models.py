import pytest
import torch

from flyweight.zoo.yolo_models import ROWS, yolov3_mobilenet_v1


def test_rows_are_named_after_their_builders():
    assert [row.name for row in ROWS] == [row.build.__name__ for row in ROWS]


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_the_width_narrows_backbone_and_head(width):
    with torch.device("meta"):
        model = yolov3_mobilenet_v1(num_classes=3, width=width)
    assert model.get_parameter("backbone.conv6.sep.conv.weight").shape[0] == 1024 * width
    assert model.get_parameter("yolo_block.0.0.0.conv.weight").shape[0] == 512 * width
