import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.pruning import plan, prune
from flyweight.pruning.verification import largest_error

STEPS = (torch.rand(2, 5, 3, dtype=torch.float64),)


class Reading(nn.Module):
    def __init__(self, layer, outputs):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(3, 8), layer, nn.Linear(outputs, 2)

    def forward(self, x):
        return self.last(self.layer(self.first(x))[0])


MAKERS = {
    "lstm": (lambda: nn.LSTM(8, 6, batch_first=True), 6),
    "two layers, two directions": (
        lambda: nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True),
        12,
    ),
    "gru without biases": (lambda: nn.GRU(8, 6, bias=False, batch_first=True), 6),
    "plain": (lambda: nn.RNN(8, 6, nonlinearity="relu", batch_first=True), 6),
}


@pytest.mark.parametrize("name", MAKERS)
def test_units_and_inputs_leave_exactly(name):
    torch.manual_seed(0)
    maker, outputs = MAKERS[name]
    model = Reading(maker(), outputs).double()
    graph = trace(model, STEPS)
    widths = {name: group.size for name, group in graph.prunable().items()}
    assert widths == {"first.weight": 8, "layer.weight_ih_l0": 6}
    made = plan(graph, 0.5)
    small = prune(model, made)
    assert (small.layer.input_size, small.layer.hidden_size) == (4, 3)
    assert largest_error(model, small, made, (torch.rand_like(STEPS[0]),)) < 1e-12
    assert trace(small, STEPS).cost() == made.cost(graph)
    small(STEPS[0].requires_grad_()).sum().backward()
    assert small.layer.weight_hh_l0.grad is not None
    assert small.layer.weight_hh_l0.shape[1] == 3


def test_multiply_adds():
    graph = trace(nn.LSTM(4, 6, batch_first=True), (torch.rand(1, 5, 4),))
    assert graph.cost().macs == 5 * (24 * 4 + 24 * 6)


def test_a_projection_is_frozen():
    model = Reading(nn.LSTM(8, 6, proj_size=4, batch_first=True), 4).double()
    groups = trace(model, STEPS).groups
    assert (
        "in a form that its rule does not cover: lstm at 'layer'" in groups["first.weight"].reason
    )
