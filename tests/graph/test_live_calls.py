import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.graph.live_calls import live_calls
from flyweight.graph.recording import record
from flyweight.graph.rules import WHOLE
from flyweight.pruning import largest_error, plan, prune


def ops_of(function, *inputs):
    class Model(nn.Module):
        def forward(self, *given):
            return function(*given)

    return [call.op for call in live_calls(record(Model(), inputs, WHOLE).evaluation)]


def test_what_nobody_takes_is_not_live():
    def function(x):
        x.softmax(1).sum(1)
        y = x.relu()
        y.mean()
        return y * 2

    assert ops_of(function, torch.rand(2, 3)) == ["relu", "mul"]


def test_what_is_written_in_place_is_live():
    def function(x):
        made = torch.zeros(2, 3)
        made[:, :2] = x.sigmoid()[:, :2]
        x.exp()
        return made

    assert ops_of(function, torch.rand(2, 3)) == ["zeros", "sigmoid", "slice", "slice", "copy"]


def test_what_decides_is_live():
    def function(x):
        return x * 2 if x.abs().sum().item() > 0 else x

    assert ops_of(function, torch.rand(2, 3))[:2] == ["abs", "sum"]


class Attention(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.weights = weights

    def forward(self, x):
        x = self.first(x)
        found, weights = self.attention(x, x, x)
        return (self.last(found), weights) if self.weights else self.last(found)


@pytest.mark.parametrize("weights", [False, True])
def test_heads_are_cut_where_nobody_takes_their_mean(weights):
    torch.manual_seed(0)
    model, x = Attention(weights).double().eval(), torch.rand(2, 5, 6).double()
    graph = trace(model, (x,))
    read = ("attention.out_proj.weight", 1)
    heads = next(
        group
        for group in graph.groups.values()
        if any((member.tensor, member.axis) == read for member in group.members)
    )
    assert heads.prunable is not weights
    if not weights:
        made = plan(graph, {heads.name: 0.5})
        assert largest_error(model, prune(model, made), made, (x,)) < 1e-12
