import pytest
import torch
from torch import nn

from flyweight.config.budget import Budget
from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.planning.knapsack import Option
from flyweight.planning.loss_curves import (
    leading_layers,
    ratios_at,
    ratios_of,
    ratios_within,
    width_options,
    widths,
)

CURVE = {0.25: 0.02, 0.5: 0.1, 0.75: 0.4}


@pytest.fixture(scope="module")
def graph():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3)),
        *(nn.ReLU(), nn.Conv2d(16, 2, 1)),
    )
    return trace(model.eval(), (torch.rand(1, 3, 8, 8),))


def test_ratios_lie_on_the_curve_at_the_drop():
    found = ratios_at({"a": CURVE, "b": {0.5: 0.9}}, 0.06)
    assert found == {"a": pytest.approx(0.375)}
    dips = {"a": {0.25: 0.2, 0.5: 0.05}}
    assert ratios_at(dips, 0.1, "original") == {"a": 0.5}
    with pytest.raises(PlanError, match="must allow some layer"):
        ratios_at(dips, 0.1)
    with pytest.raises(PlanError, match="between 0 and 1"):
        ratios_at(dips, 2)


def test_widths_are_whole_channels_and_dearer_when_narrower():
    assert widths({0.5: 0.2}, 4) == [Option(4, 0.0), Option(3, 0.1), Option(2, 0.2)]
    assert [option.keep for option in widths(CURVE, 16, round_to=8)] == [16, 8]
    losses = [option.loss for option in widths({0.25: 0.3, 0.5: 0.1, 0.75: 0.2}, 16)]
    assert losses == sorted(losses)


def test_options_and_their_layers(graph):
    losses = {"2.weight": CURVE, "2.weights": CURVE, "0.weight": CURVE}
    layers, options = width_options(losses, graph)
    assert (
        layers == {"2.weight": "2.weight", "0.weight": "0.weight"} == leading_layers(losses, graph)
    )
    assert max(option.keep for option in options["2.weight"]) == 16
    assert ratios_of(graph, layers, {"0.weight": 8, "2.weight": 4}) == {"2.weight": 0.75}
    with pytest.raises(PlanError, match="Nearest"):
        leading_layers({"3.weight": CURVE}, graph)


@pytest.mark.parametrize("budget", [Budget(macs=0.7), Budget(macs=20_000), Budget(params=1000)])
def test_ratios_within_a_budget(graph, budget):
    found = ratios_within({"0.weight": CURVE, "2.weight": CURVE}, graph, budget)
    kept = {name: group.size for name, group in graph.groups.items()}
    kept |= {name: round(kept[name] * (1 - ratio)) for name, ratio in found.items()}
    cost = graph.costs.price(kept)
    assert getattr(cost, budget.quantity) <= budget.limit(graph.cost())
    with pytest.raises(PlanError, match="must come with a table of layers"):
        ratios_within({"0.weight": CURVE}, graph, Budget(latency_ms=1))
