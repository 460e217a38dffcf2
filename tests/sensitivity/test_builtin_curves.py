import pytest
import torch

import flyweight as fw
from flyweight.errors import PlanError
from flyweight.sensitivity import builtin_curves, builtin_names, read

SIZES = {"blazeface": 416, "yolov3_mobilenet_v1": 320}


@pytest.mark.parametrize("name", builtin_names())
def test_curves_are_of_the_network_that_they_are_named_after(name):
    curves = read(builtin_curves(name))
    assert curves.measured_on
    model = fw.create(name, num_classes=3).eval()
    size = SIZES.get(name, 224)
    graph = fw.trace(model, (torch.rand(1, 3, size, size),))
    made = curves.plan(max_drop=0.05, graph=graph)
    assert 0.2 * graph.cost().macs < made.cost(graph).macs < 0.98 * graph.cost().macs
    assert all(curves.losses(layer) for layer in curves.curves)


def test_a_network_without_curves_is_told_which_have_some():
    with pytest.raises(PlanError, match=r"Networks with curves: .*yolov3_mobilenet_v1"):
        builtin_curves("yolov3_mobilenet_v9")
