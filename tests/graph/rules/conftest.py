"""One operation at a time, without a model round it."""

import pytest
import torch
from tests import strategies
from torch import nn

from flyweight.graph import trace
from flyweight.graph.identity import Field, Flow
from flyweight.graph.rules import RULES
from flyweight.graph.step import Ledger, Step
from flyweight.pruning import plan, prune


class Bench:
    """Runs single rules and tells what became of the identities."""

    def __init__(self):
        self.ledger = Ledger()

    def flow(self, *shape, axes=None, parameter=False):
        """Return a tensor with fresh identities on `axes` (every axis wider than one)."""
        wanted = [a for a, size in enumerate(shape) if size > 1] if axes is None else axes
        fields = [Field((axis,), self.ledger.identities.fresh(shape[axis])) for axis in wanted]
        return Flow(tuple(shape), tuple(fields), parameter)

    def run(self, op, /, *shapes, **arguments):
        """Return the result of operation `op` whose results have `shapes`."""
        return RULES[op](Step(op, "here", arguments, shapes, self.ledger))

    @property
    def frozen(self):
        return [why.split(":")[0] for _, why in self.ledger.identities.frozen]

    @property
    def frozen_ids(self):
        return sorted(i for ids, _ in self.ledger.identities.frozen for i in ids.tolist())

    @property
    def mixed(self):
        return sorted({i for ids, _ in self.ledger.identities.mixed for i in ids.tolist()})

    def together(self, left, right):
        """Whether identities at equal positions leave together, and only those."""
        labels = self.ledger.identities.components()
        return labels[left].tolist() == labels[right].tolist()


@pytest.fixture
def bench():
    return Bench()


class Around(nn.Module):
    """A function, with parts of its own, between convolutions that make and read channels."""

    def __init__(self, function, channels=16, **parts):
        super().__init__()
        self.function, self.width = function, 16
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.third, self.last = nn.Conv2d(channels, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        x = self.second(self.first(x).relu())
        return self.last(self.third(self.function(self, x)).relu())


def cut(model, inputs=None, ratio=0.5, least=0.6):
    """Cut a network and compare it with one whose removed activations are zeroed.

    Args:
        model: Its channels are read by convolutions and linear layers.
        inputs: Two images of 8x8 by default.
        ratio: Of the plan.
        least: The share of the parameters that must leave.

    Returns:
        The graph, the plan and the cut network.
    """
    torch.manual_seed(0)
    model = strategies.randomised(model)
    inputs = inputs or (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    graph = trace(model, inputs)
    made = plan(graph, ratio)
    small = prune(model, made)
    gone = 1 - made.cost(graph).params / graph.cost().params
    assert gone >= least, {name: (g.reason, g.mixes) for name, g in graph.groups.items()}
    expected = strategies.zeroed_where_read(model, made.slices(graph), inputs)
    with torch.no_grad():
        assert float((small(*inputs) - expected).abs().max() / expected.abs().max()) < 1e-12
    return graph, made, small


def reasons(graph):
    """Return why groups are frozen, except for the outputs of the model."""
    found = {group.reason for group in graph.groups.values() if group.reason}
    return found - {"is an output of the model"}
