import itertools

import pytest
import torch
from tests import strategies
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.sensitivity import Budget, Point, Sensitivity
from flyweight.sensitivity.budget import solve
from flyweight.sensitivity.knapsack import Option


def network():
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()),
        *(nn.Conv2d(8, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)),
    )


def options_of(graph, seed):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for group in graph.prunable().values():
        losses = torch.rand(3, generator=generator).cumsum(0).tolist()
        widths = [group.size, max(group.size - 2, 1), max(group.size - 3, 1)]
        rows = zip(widths, [0.0, *losses], strict=False)
        found[group.name] = [Option(keep, loss) for keep, loss in rows]
    return found


def price(graph, chosen):
    kept = {name: group.size for name, group in graph.groups.items()}
    return graph.costs.price({**kept, **{name: option.keep for name, option in chosen.items()}})


@pytest.mark.parametrize("quantity", ["macs", "params", "size_bytes"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "build",
    [network, lambda: strategies.build(["residual", "depthwise", "concat"], 4)],
    ids=["chain", "coupled"],
)
def test_the_least_loss_within_the_budget_is_found(build, quantity, seed):
    model = build()
    dtype = next(model.parameters()).dtype
    graph = trace(model.eval(), (torch.rand(1, 3, 8, 8, dtype=dtype),))
    options = options_of(graph, seed)
    budget = Budget(**{quantity: 0.7})
    limit = budget.limit(graph.cost())
    best = min(
        sum(option.loss for option in chosen)
        for chosen in itertools.product(*options.values())
        if getattr(price(graph, dict(zip(options, chosen, strict=True))), quantity) <= limit
    )
    found = solve(graph, options, budget)
    assert getattr(price(graph, found), quantity) <= limit
    assert sum(option.loss for option in found.values()) == pytest.approx(best, abs=1e-6)


def test_the_floor_of_a_budget_is_told():
    graph = trace(network().eval(), (torch.rand(1, 3, 8, 8),))
    with pytest.raises(PlanError, match=r"Received macs .*the floor is [\d,]+ of [\d,]+"):
        solve(graph, options_of(graph, 0), Budget(macs=0.01))


def test_curves_and_a_budget_make_a_plan():
    graph = trace(network().eval(), (torch.rand(1, 3, 8, 8),))
    cheap, dear = [0.01, 0.02, 0.03], [0.2, 0.4, 0.6]
    curves = {
        name: tuple(Point(r, 1 - loss) for r, loss in zip((0.25, 0.5, 0.75), losses, strict=True))
        for name, losses in (("0.weight", dear), ("2.weight", cheap), ("4.weight", dear))
    }
    found = Sensitivity("m", 1.0, curves, graph=graph)
    made = found.plan(budget=Budget(macs=0.6))
    assert made.cost(graph).macs <= 0.6 * graph.cost().macs
    assert list(made.groups) == ["2.weight"]
    assert all(len(g.keep) % 2 == 0 for g in found.plan(budget=Budget(macs=0.5), round_to=2).groups.values())  # fmt: skip  # noqa: E501
    for wrong in ({}, {"max_drop": 0.1, "budget": Budget(macs=0.5)}):
        with pytest.raises(PlanError, match="either max_drop or a budget"):
            found.plan(**wrong)


@pytest.mark.parametrize("wrong", [{}, {"macs": 0.5, "params": 0.5}, {"macs": 0}, {"macs": True}])
def test_budgets_that_cannot_be_meant(wrong):
    with pytest.raises(PlanError, match="must limit one thing"):
        Budget(**wrong)


def test_budgets_as_text():
    assert Budget.parse("params=2e6") == Budget(params=2_000_000)
    assert Budget(params=2e6).limit(None) == 2e6
    for text in ("macs", "mac=0.5", "macs=few", "macs=-1"):
        with pytest.raises(PlanError, match="must read QUANTITY=NUMBER"):
            Budget.parse(text)
