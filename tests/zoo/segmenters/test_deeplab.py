import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.zoo.segmenters.deeplab import DeepLabV3Plus, Pyramid


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Conv2d(3, 8, 4, stride=4)
        self.high = nn.Conv2d(8, 12, 4, stride=4)

    def forward(self, images):
        low = self.low(images)
        return low, self.high(low)


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_scores_are_as_large_as_the_picture(size):
    model = DeepLabV3Plus(Backbone(), (8, 12), 5).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 5, *size)


def test_all_but_the_scores_can_be_cut():
    graph = trace(DeepLabV3Plus(Backbone(), (8, 12), 5), (torch.zeros(1, 3, 64, 64),))
    frozen = [name for name, group in graph.groups.items() if not group.prunable]
    assert frozen == ["classifier.weight"]


def test_it_trains_on_one_picture():
    model = DeepLabV3Plus(Backbone(), (8, 12), 5)
    model(torch.rand(1, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_rates_are_the_papers():
    for stride, rates in ((16, [6, 12, 18]), (8, [12, 24, 36])):
        pyramid = DeepLabV3Plus(Backbone(), (8, 12), 5, output_stride=stride).pyramid
        assert isinstance(pyramid, Pyramid)
        assert [branch[0][0].dilation[0] for branch in pyramid.atrous] == rates
