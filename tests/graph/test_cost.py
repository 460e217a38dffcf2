"""Costs: hand-counted, against fvcore, and the originals' exact figures."""

import pytest
import torch
import torchvision
from torch import nn

from flyweight import zoo
from flyweight.graph import trace
from flyweight.graph.cost import AxisSize, CostModel, OpCost, TensorCost


def graph_of(model, *shape):
    return trace(model, (torch.rand(*shape),))


def test_an_axis_counts_what_stays():
    axis = AxisSize(3, (("a", 2), ("b", 1)))
    assert axis.under({"a": 5, "b": 7}) == 3 + 10 + 7


def test_an_operation_under_both_conventions():
    op = OpCost("conv", "conv2d", 10, (AxisSize(0, (("a", 1),)), AxisSize(9)), paddle=True)
    hidden = OpCost("conv", "deform_conv2d", 10, (AxisSize(9),), paddle=False)
    assert op.macs({"a": 4}, "real") == 360
    assert op.macs({"a": 4}, "paddle") == 36
    assert hidden.macs({}, "real") == 90
    assert hidden.macs({}, "paddle") == 0


def test_a_price_separates_learnable_floating_and_bytes():
    tensors = (
        TensorCost("weight", (AxisSize(4),), 2, learnable=True, floating=True),
        TensorCost("mean", (AxisSize(3),), 4, learnable=False, floating=True),
        TensorCost("index", (AxisSize(5),), 8, learnable=False, floating=False),
    )
    cost = CostModel((), tensors, {}).price({})
    assert (cost.params, cost.values, cost.size_bytes) == (4, 7, 8 + 12 + 40)


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 6, 5), 30 * 8 * 27),
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 6, 5), 2 * 30 * 8 * 27),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 6, 5), 12 * 8 * 18),
        (nn.Conv1d(4, 8, 3), (1, 4, 7), 5 * 8 * 12),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 3, 3), 9 * 4 * 6 * 4),
        (nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (1, 4, 3, 3), 9 * 4 * 3 * 4),
        (nn.Linear(5, 7), (2, 3, 5), 6 * 35),
    ],
)
def test_hand_counted_macs(model, shape, macs):
    assert graph_of(model, *shape).cost().macs == macs


def test_attention_counts_both_products():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(6, 18)

        def forward(self, x):
            query, key, value = self.qkv(x).view(1, 5, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
            return nn.functional.scaled_dot_product_attention(query, key, value)

    cost = graph_of(Attend(), 1, 5, 6).cost()
    assert cost.macs == 5 * 6 * 18 + 2 * (2 * 5 * 5 * 3)


def test_size_is_what_state_takes_without_step_counts():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).half()
    cost = trace(model, (torch.rand(1, 3, 4, 4, dtype=torch.float16),)).cost()
    assert cost.params == 12 + 4 + 8
    assert cost.values == cost.params + 8
    assert cost.size_bytes == 2 * cost.values


def test_what_is_not_counted_is_listed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU())
    uncounted = graph_of(model, 1, 3, 4, 4).costs.uncounted
    assert dict(uncounted) == {"batch_norm": 1, "relu": 2}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 64), ("mobilenet_v2", 64), ("regnet_x_400mf", 64)]
)
def test_macs_agree_with_fvcore(name, side):
    from fvcore.nn import FlopCountAnalysis

    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.rand(2, 3, side, side)
    analysis = FlopCountAnalysis(model, images)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_operator()
    assert trace(model, (images,)).cost().macs == counted["conv"] + counted["linear"]


# Section 4 of the cost accounting: GMACs at 320, 416, 608; values with statistics; learnable
# values; MACs at an unknown image size.
ORIGINALS = {
    80: ((6.1386, 10.3743, 22.1604), 24_609_981, 24_571_197, 24_531_648),
    20: ((6.0096, 10.1562, 21.6947), 24_286_881, 24_248_097, 24_209_088),
}


@pytest.mark.parametrize("classes", [80, 20])
def test_the_original_detector_costs_what_it_did(classes):
    giga, values, learnable, unknown = ORIGINALS[classes]
    with torch.device("meta"):
        model = zoo.create("yolov3_mobilenet_v1", num_classes=classes)
        graphs = [trace(model, (torch.zeros(1, 3, side, side),)) for side in (320, 416, 608)]
    assert tuple(round(graph.cost().macs / 1e9, 4) for graph in graphs) == giga
    for graph in graphs:
        cost = graph.cost()
        assert (cost.values, cost.params, cost.size_bytes) == (values, learnable, 4 * values)
        assert graph.cost("paddle").macs == unknown
