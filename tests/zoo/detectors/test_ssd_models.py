"""SSDLite and BlazeFace by the originals' exact figures: sections 4.4 and 8.3 of their facts."""

import pytest
import torch

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.graph import trace
from flyweight.zoo.detectors.ssd_models import ROWS

# Side of the input, values with statistics, MACs / 2**30, priors.
FIGURES = {
    "ssdlite_mobilenet_v3_small": (320, 1_939_502, 0.164, 2434),
    "ssdlite_mobilenet_v3_large": (320, 3_427_878, 0.492, 2434),
    "blazeface": (640, 202_416, 1.136, 22400),
    "blazeface_lite": (640, 176_226, 1.101, 22400),
    "blazeface_nas": (640, 60_012, 0.248, 22400),
    "blazeface_nas_v2": (640, 98_620, 0.415, 22400),
}


def figures(name, side, **arguments):
    with torch.device("meta"):
        model = zoo.create(name, **arguments).eval()
        images = torch.empty(1, 3, side, side)
        priors = sum(level[0].numel() for level in model(images)[0::2]) // 4
        cost = trace(model, (images,)).cost()
    return cost.values, round(cost.macs / 2**30, 3), priors


def test_rows_are_named_after_their_builders():
    assert [row.name for row in ROWS] == [row.build.__name__ for row in ROWS] == list(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_the_originals(name):
    side, *wanted = FIGURES[name]
    assert figures(name, side) == tuple(wanted)


def test_the_variant_with_small_kernels():
    assert figures("blazeface_nas", 640, kernel_size=3) == (40_740, 0.173, 22400)


@pytest.mark.parametrize(
    ("name", "arguments", "letter"),
    [
        ("blazeface", {"kernel_size": 4}, "kernel_size must be 3 or 5. Received: 4"),
        ("blazeface", {"num_classes": 0}, "num_classes must be"),
        ("blazeface_lite", {"num_classes": True}, "num_classes must be"),
        ("ssdlite_mobilenet_v3_small", {"multiplier": 0}, "multiplier must be a number above 0"),
        ("ssdlite_mobilenet_v3_large", {"width": "1"}, "width must be a number above 0"),
    ],
)
def test_values_that_cannot_be_meant(name, arguments, letter):
    with pytest.raises(ConfigError, match=letter):
        zoo.create(name, **arguments)


def test_the_multiplier_and_the_width_reach_the_network():
    def shape(**arguments):
        with torch.device("meta"):
            model = zoo.create("ssdlite_mobilenet_v3_large", **arguments)
        return model.get_parameter("backbone.conv16.linear.conv.weight").shape[:2]

    assert shape() == (80, 480)
    assert shape(multiplier=1.0) == (160, 960)
    assert shape(width=0.5) == (40, 240)
