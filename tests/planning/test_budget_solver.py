import itertools

import pytest
import torch
from tests import strategies
from tests.measuring.machine import blocked
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.table_builder import measure_layers
from flyweight.planning.budget_solver import solve
from flyweight.planning.knapsack import Option
from flyweight.sensitivity import Budget, Point, Sensitivity


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", [1.0, 20.0], ids=["share", "ms"])
@pytest.mark.parametrize(
    "build",
    [network, lambda: strategies.build(["residual", "depthwise"], 4)],
    ids=["chain", "coupled"],
)
def test_the_least_loss_within_a_latency_is_found(tmp_path, build, unit, seed):
    model = build()
    dtype = next(model.parameters()).dtype
    graph = trace(model.eval(), (torch.rand(1, 3, 8, 8, dtype=dtype),))
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(1))
    prices = LatencyPrices.of(graph, table.with_whole(graph, 20.0))
    options = options_of(graph, seed)

    def latency(chosen):
        return prices.predict_ms({name: option.keep for name, option in chosen.items()})

    floor = latency({name: rows[-1] for name, rows in options.items()})
    limit = (floor + 20.0) / 2
    best = min(
        sum(option.loss for option in chosen)
        for chosen in itertools.product(*options.values())
        if latency(dict(zip(options, chosen, strict=True))) <= limit
    )
    quantity = "latency_share" if unit == 1 else "latency_ms"
    found = solve(graph, options, Budget(**{quantity: limit * unit / 20}), prices)
    assert latency(found) <= limit + 1e-6
    assert sum(option.loss for option in found.values()) == pytest.approx(best, abs=1e-6)
    assert best > 0


def test_channels_that_meet_in_a_concatenation_have_a_price(tmp_path):
    model = strategies.build(["concat", "concat"], 4)
    dtype = next(model.parameters()).dtype
    graph = trace(model.eval(), (torch.rand(1, 3, 8, 8, dtype=dtype),))
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(1))
    prices = LatencyPrices.of(graph, table)
    options = options_of(graph, 0)
    layers = [{g for g, _ in (*p.layer.inputs.shares, *p.layer.outputs.shares)} for p in prices.layers]  # fmt: skip  # noqa: E501
    assert max(map(len, layers)) > 2
    found = solve(graph, options, Budget(latency_share=0.8), prices)
    # Times that grow with the product of widths lie on the plane, so the price is exact.
    spent = prices.predict_ms({name: option.keep for name, option in found.items()})
    assert spent <= 0.8 * prices.predict_ms({}) * (1 + 1e-3)


def test_a_latency_budget_asks_for_its_table(tmp_path):
    graph = trace(network().eval(), (torch.rand(1, 3, 8, 8),))
    options = options_of(graph, 0)
    with pytest.raises(PlanError, match=r"Received none\. Make one with: flyweight bench --layers"):
        solve(graph, options, Budget(latency_ms=5))
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(1))
    prices = LatencyPrices.of(graph, table.with_whole(graph, 20.0))
    with pytest.raises(PlanError, match=r"the floor is [\d.]+ of 20\.000 ms as the table predicts"):
        solve(graph, options, Budget(latency_ms=0.5), prices)


def test_losses_are_read_at_the_channels_that_leave():
    model = nn.Sequential(nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 2, 1))
    graph = trace(model.eval(), (torch.rand(1, 3, 8, 8),))
    curves = {"0.weight": tuple(Point(r / 10, 1 - r / 10) for r in range(1, 10))}
    _, options = Sensitivity("m", 1.0, curves, graph=graph).options(graph, 16)
    found = {option.keep: option.loss for option in options["0.weight"]}
    assert found == {48: 0, 32: pytest.approx(1 / 3, abs=0.02), 16: pytest.approx(2 / 3, abs=0.02)}
