"""What tests of several networks share."""

import pytest
import torch
from tests import strategies

from flyweight.graph import trace
from flyweight.pruning import largest_error, plan, prune


@pytest.fixture
def cut_in_half():
    """Return a function that prunes half of everything and checks the result by two oracles."""

    def check(model, *, side, images=1, frozen=("is an output of the model",)):
        """Return the traced graph and the small network; `frozen` are the reasons to stay whole."""
        torch.manual_seed(0)
        model = strategies.randomised(model)
        inputs = (torch.randn(images, 3, side, side, dtype=torch.float64),)
        graph = trace(model, inputs)
        reasons = {group.reason for group in graph.groups.values() if group.reason}
        assert {reason.partition(":")[0] for reason in reasons} == set(frozen)
        made = plan(graph, 0.5)
        assert set(made.groups) == {n for n, g in graph.prunable().items() if g.size > 1}
        small = prune(model, made, verify=False)
        assert largest_error(model, small, made, inputs) <= 1e-9
        expected = strategies.zeroed_where_read(model, made.slices(graph), inputs)
        with torch.no_grad():
            found = small(*inputs)
        for mine, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9 * wanted.abs().max())
        assert trace(small, inputs).cost() == made.cost(graph)
        return graph, small

    return check
