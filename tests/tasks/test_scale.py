import numpy as np
import torch

from flyweight.tasks.scale import original_boxes, original_scale


def test_axes_are_scaled_apart():
    assert original_scale((320, 160), (640, 480)) == (3.0, 2.0, 3.0, 2.0)
    boxes = original_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (320, 160), (640, 480))
    np.testing.assert_array_equal(boxes, [[3, 4, 9, 8]])
    assert boxes.dtype == np.float64


def test_no_boxes():
    assert original_boxes(torch.zeros(0, 4), (10, 10), (10, 10)).shape == (0, 4)
