import torch
from torch import nn

from flyweight.graph import trace
from flyweight.pruning import plan
from flyweight.pruning.masking import masked


def test_removed_channels_are_zero_where_they_are_read_and_nowhere_else():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    made = plan(trace(model, (torch.rand(1, 3, 4, 4),)), 0.5)
    (kept,) = made.keep.values()
    twin = masked(model, made)
    gone = [channel for channel in range(6) if channel not in kept]
    assert not twin[2].weight[:, gone].any()
    assert torch.equal(twin[2].weight[:, list(kept)], model[2].weight[:, list(kept)])
    assert torch.equal(twin[0].weight, model[0].weight)
