import numpy as np

from flyweight.tasks.decoding.scale import original_boxes


def test_axes_are_scaled_apart(make_target):
    boxes = original_boxes(make_target([(1, 2, 3, 4)], [0], scale=(3.0, 2.0)))
    np.testing.assert_array_equal(boxes, [[3, 4, 9, 8]])
    assert boxes.dtype == np.float64


def test_no_boxes(make_target):
    assert original_boxes(make_target()).shape == (0, 4)
