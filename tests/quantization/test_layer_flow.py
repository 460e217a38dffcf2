import torch
from torch import nn

from flyweight.graph.example_inputs import Example
from flyweight.quantization.layer_flow import Flow, flows_between, makers_of
from flyweight.quantization.sites import record_sites


class Branches(nn.Module):
    """A convolution, two after it that are added, pooled and classified."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        x = torch.relu(self.stem(images))
        x = self.one(x) + self.other(x)
        return self.head(x.mean((2, 3)))


def recorded():
    return record_sites(Branches().eval(), Example((torch.randn(1, 3, 8, 8),)))


LAYERS = ("stem.conv2d", "one.conv2d", "other.conv2d", "head.linear")


def test_flows_pass_everything_between_layers():
    assert flows_between(recorded(), LAYERS) == (
        Flow("stem.conv2d", "one.conv2d", 4 * 8 * 8),
        Flow("stem.conv2d", "other.conv2d", 4 * 8 * 8),
        # Two layers make the four values that the last one reads.
        Flow("one.conv2d", "head.linear", 2),
        Flow("other.conv2d", "head.linear", 2),
    )


def test_what_is_no_layer_is_passed():
    flows = flows_between(recorded(), ("stem.conv2d", "head.linear"))
    assert flows == (Flow("stem.conv2d", "head.linear", 4),)


def test_the_input_has_no_maker():
    found = recorded()
    makers = makers_of(found, LAYERS)
    first = found.sites[0]
    assert not any(makers.get(number) for number in first.reads)
    assert makers[first.makes[0]] == {"stem.conv2d"}
