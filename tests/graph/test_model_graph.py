import torch
from torch import nn

from flyweight.graph import trace


def test_a_graph_prices_and_lists_what_can_go():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 5, 5),))
    assert list(graph.prunable()) == ["0.weight"]
    assert graph.cost().macs == 25 * (12 + 8)
    assert graph.cost("paddle").macs == 12 + 8
    assert graph.tensors["0.weight"] is model[0].weight


def test_graphs_are_told_apart_by_structure():
    def graph(width, depth=1):
        layers = [nn.Conv2d(3, width, 1), *[nn.Conv2d(width, width, 1) for _ in range(depth)]]
        return trace(nn.Sequential(*layers), (torch.rand(1, 3, 5, 5),)).fingerprint

    assert graph(4) == graph(4)
    assert len({graph(4), graph(5), graph(4, 2)}) == 3
