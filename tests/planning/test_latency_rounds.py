import itertools
import random

import pytest
import torch
from tests.measuring.machine import blocked
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.table_builder import measure_layers
from flyweight.planning.knapsack import Option
from flyweight.sensitivity import Budget, Round, Timing, fit_latency


def network(width=64):
    pairs = itertools.pairwise((3, width, width, width, width, width))
    layers = [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(width, 4, 1))


@pytest.fixture
def prices(tmp_path):
    graph = trace(network().eval(), (torch.rand(1, 3, 16, 16),))
    table = measure_layers(graph, tmp_path / "t.json", timer=blocked(4))
    return LatencyPrices.of(graph, table)


def options_of(prices, least=8, seed=0):
    draw = random.Random(seed)
    found = {}
    for group in prices.graph.prunable().values():
        steep = draw.uniform(0.5, 2)
        widths = range(group.size, least - 1, -4)
        found[group.name] = [
            Option(width, steep * (1 - width / group.size) ** 2) for width in widths
        ]
    return found


def machine(prices, *, power=1.4, start=0.2, noise=0.003, seed=0, measured=None):
    """Return what measures networks on a machine whose latency bends away from the table's sum."""
    draw, dense = random.Random(seed), prices.sum_ms({})

    def measure(kept):
        share = start + (1 - start) * (prices.sum_ms(kept) / dense) ** power
        latency = 20.0 * share * (1 + draw.gauss(0, noise))
        if measured is not None:
            measured.append(dict(kept))
        return Timing(latency, (latency * 0.99, latency * 1.01), 20.0 * (1 + draw.gauss(0, noise)))

    return measure


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4, 2.5])
@pytest.mark.parametrize("budget", [Budget(latency_ms=12.0), Budget(latency_share=0.6)])
@pytest.mark.parametrize("seed", range(3))
def test_a_bent_latency_is_met_in_a_few_rounds(prices, power, budget, seed):
    told, measured = [], []
    measure = machine(prices, power=power, seed=seed, measured=measured)
    options = options_of(prices, seed=seed)
    found = fit_latency(options, prices, budget, measure, on_round=told.append)
    assert found.chosen.met
    assert 0.97 <= found.chosen.timing.latency_ms / found.chosen.limit_ms <= 1
    assert found.chosen.limit_ms == pytest.approx(12, rel=0.02)
    assert found.kept == measured[-1]
    assert len(measured) <= 5
    assert list(found.rounds) == told
    assert "within the budget, " in found.verdict


def test_the_plan_is_the_one_of_least_loss(prices):
    options = options_of(prices, least=40)
    measure = machine(prices, power=1.0, noise=0.0)
    found = fit_latency(options, prices, Budget(latency_share=0.8), measure)
    least = min(
        sum(option.loss for option in chosen)
        for chosen in itertools.product(*(rows[::2] for rows in options.values()))
        if prices.sum_ms({g: o.keep for g, o in zip(options, chosen, strict=True)})
        <= found.chosen.sum_ms
    )
    assert found.chosen.loss <= least + 1e-6


def test_a_budget_below_the_floor_is_infeasible(prices):
    options = options_of(prices, least=32)
    scanned = {name: options[name] for name in list(options)[1:]}
    with pytest.raises(PlanError) as caught:
        fit_latency(scanned, prices, Budget(latency_ms=3), machine(prices, noise=0.0))
    letter = str(caught.value)
    assert "Received 3.000 ms, which is infeasible: the floor is " in letter
    assert "because with every scanned layer as narrow as its largest ratio" in letter
    floor = machine(prices, noise=0.0)(dict.fromkeys(scanned, 32)).latency_ms
    assert f"the floor is {floor:.3f} ms" in letter
    assert "(at its narrowest)" in letter


def test_the_letter_says_why_a_layer_takes_its_share(prices):
    options = options_of(prices)
    only = {"8.weight": [Option(64, 0.0), Option(4, 1.0)]}
    assert options.keys() >= only.keys()
    with pytest.raises(PlanError) as caught:
        fit_latency(only, prices, Budget(latency_ms=1), machine(prices))
    # Of five equal layers two are narrow; three that nobody scanned take the most.
    assert str(caught.value).count("(not scanned)") == 3


def test_a_budget_that_the_dense_network_keeps(prices):
    measured = []
    measure = machine(prices, measured=measured)
    found = fit_latency(options_of(prices), prices, Budget(latency_ms=30), measure)
    assert found.kept == {}
    assert len(measured) == 1
    assert "nothing is cut" in found.verdict


def test_no_network_is_measured_twice_and_the_nearest_below_is_taken(prices):
    options = {
        name: [Option(64, 0.0), Option(32, 0.1)] for name in list(prices.graph.prunable())[:2]
    }
    measured = []
    measure = machine(prices, power=1.0, start=0.0, noise=0.0, measured=measured)
    found = fit_latency(options, prices, Budget(latency_share=0.93), measure)
    assert not found.chosen.met
    assert found.chosen.spent < 0.97
    assert "no plan nearer to it was found" in found.verdict
    keys = [tuple(sorted(kept.items())) for kept in measured]
    assert len(set(keys)) == len(keys)
    within = [
        (sum(option.loss for option in chosen), kept)
        for chosen in itertools.product(*options.values())
        if prices.sum_ms(kept := {g: o.keep for g, o in zip(options, chosen, strict=True)})
        <= 0.93 * prices.sum_ms({})
    ]
    assert found.chosen.loss == pytest.approx(min(loss for loss, _ in within), abs=1e-9)


def test_rounds_are_bounded(prices):
    measured = []
    measure = machine(prices, noise=0.2, measured=measured)
    budget = Budget(latency_share=0.6)
    found = fit_latency(options_of(prices), prices, budget, measure, rounds=4)
    assert len(measured) <= 4
    assert found.chosen is None or found.chosen.spent <= 1


def test_a_round_in_words():
    timing = Timing(9.0, (8.9, 9.2), 20.0, "NOISY MACHINE: busy")
    found = Round({}, 0.0, 1.0, 9.5, 10.0, timing)
    assert not found.met
    assert str(found) == (
        "predicted 9.500 ms, measured 9.000 ms (8.900 to 9.200), "
        "90.0 % of the budget of 10.000 ms; dense 20.000 ms; NOISY MACHINE: busy"
    )


def test_other_budgets_are_not_measured(prices):
    with pytest.raises(PlanError, match=r"must limit latency\. Received macs"):
        fit_latency(options_of(prices), prices, Budget(macs=0.5), machine(prices))
