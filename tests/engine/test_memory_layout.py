import pytest
import torch
from torch import nn

from flyweight.engine.memory_layout import put_channels_last


def is_channels_last(layer):
    return layer.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(16, 8, 1, stride=2, groups=4), False),
        (nn.Conv2d(8, 8, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, stride=2), True),
    ],
)
def test_networks_with_layers_that_fail_in_it_are_not_in_it(layer, changes):
    first = nn.Conv2d(3, 4, 3)
    put_channels_last(nn.Sequential(first, layer))
    assert is_channels_last(first) == changes
    first.to(memory_format=torch.channels_last)
    put_channels_last(nn.Sequential(first, layer))
    assert is_channels_last(first) == changes


def test_narrow_layers_with_a_stride_train():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 16, 1, stride=2))
    put_channels_last(model)
    for _ in range(20):  # What was written beyond the memory showed after some steps.
        model(torch.rand(8, 3, 16, 16)).sum().backward()
