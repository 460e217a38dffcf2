import base64

import numpy as np
import pytest
import torch
from tests import strategies
from tests.measuring.machine import blocked
from torch import nn

from flyweight.errors import DataError, PlanError
from flyweight.graph import trace
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.table_builder import measure_layers
from flyweight.report.explorer_sections import price
from flyweight.sensitivity import Point, Sensitivity
from flyweight.sensitivity.explorer_values import QUANTITIES, Cutting, explorer

RATIOS = (0.25, 0.5, 0.75)


def curves_of(graph, layers, *, local=False, criterion="l1_norm"):
    points = tuple(Point(ratio, 0.8 - 0.1 * ratio) for ratio in RATIOS)
    return Sensitivity(
        "m", 0.8, dict.fromkeys(layers, points), criterion=criterion, local=local, graph=graph
    )


def order_in(text):
    raw = base64.b64decode(text)
    return np.frombuffer(raw[1:], dtype=f"<u{raw[0]}").tolist()


class Twins(nn.Module):
    """Two layers that make the same channels."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.last(self.one(x) + self.two(x))


@pytest.mark.parametrize(
    "kinds",
    [["residual", "depthwise", "concat"], ["attention", "grouped", "shuffle"], ["squeeze_excite"]],
)
def test_any_widths_are_priced_as_the_graph_prices_them(kinds):
    graph = trace(strategies.build(kinds, 5, flatten=True), strategies.example(1))
    shown = explorer(curves_of(graph, list(graph.prunable())), graph)
    generator = np.random.default_rng(0)
    for _ in range(5):
        kept = {n: int(generator.integers(1, g.size + 1)) for n, g in graph.groups.items()}
        cost = graph.costs.price(kept)
        for place, quantity in enumerate(QUANTITIES):
            assert price(shown, place, list(kept.values())) == getattr(cost, quantity.key)


@pytest.mark.parametrize("local", [True, False])
def test_the_orders_are_those_in_which_plans_take_channels(local):
    graph = trace(strategies.build(["residual", "concat"], 6), strategies.example(1))
    curves = curves_of(graph, list(graph.prunable()), local=local)
    shown = explorer(curves, graph)
    made = curves.plan(max_drop=0.05)
    first = {}
    for layer in shown.layers:
        for place, text in layer.orders:
            first.setdefault(shown.groups[place].name, order_in(text))
    assert made.groups
    for name, group in made.groups.items():
        assert sorted(first[name]) == list(range(group.channels))
        assert sorted(first[name][group.channels - len(group.keep) :]) == list(group.keep)


def test_options_are_those_of_the_exact_solver_and_one_layer_speaks_for_a_group():
    graph = trace(Twins().eval(), (torch.rand(1, 3, 4, 4),))
    curves = curves_of(graph, ["one.weight", "two.weight"])
    found = explorer(curves, graph, Cutting(round_to=2)).layers
    assert found[0].options == ((8, 0.0), (6, 0.03125), (4, 0.0625), (2, 0.09375))
    assert found[1].options == ()


def test_latency_is_a_smooth_price_that_rises_with_every_width(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 48, 1), nn.Conv2d(48, 2, 1)).eval()
    graph = trace(model, (torch.rand(1, 3, 16, 16),))
    prices = LatencyPrices.of(graph, measure_layers(graph, tmp_path / "t.json", timer=blocked(16)))
    curves = curves_of(graph, ["0.weight", "1.weight"])
    shown = explorer(curves, graph, Cutting(round_to=3, latency=prices, latency_option="-t"))
    assert shown.quantities[-1].key == "latency_share"
    assert shown.round_to == 48
    full = [group.size for group in shown.groups]
    assert price(shown, 3, full) == pytest.approx(prices.predict_ms({}))
    assert price(shown, 0, full) == graph.cost().macs
    for place in range(2):
        times = [
            price(shown, 3, [*full[:place], width, *full[place + 1 :]]) for width in (16, 32, 48)
        ]
        assert times[0] < times[1] < times[2]
    half = dict.fromkeys(graph.prunable(), 32)
    predicted = price(shown, 3, [half.get(group.name, group.size) for group in shown.groups])
    assert predicted == pytest.approx(prices.predict_ms(half), rel=0.25)


def test_layers_that_cannot_be_cut_are_named_or_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    shown = explorer(curves_of(graph, ["0.weight", "elsewhere.weight", "1.weight"]), graph)
    assert [layer.name for layer in shown.layers] == ["0.weight"]
    assert shown.notes == ("2 layers of the scan cannot be cut in this network and are left out.",)
    with pytest.raises(PlanError, match="2 layers, none of which can"):
        explorer(curves_of(graph, ["elsewhere.weight", "1.weight"]), graph)
    with pytest.raises(PlanError, match="has to be measured again"):
        explorer(curves_of(graph, ["0.weight"], criterion="taylor"), graph)
    blind = Sensitivity("m", 0.0, {"0.weight": (Point(0.5, 0.0),)})
    with pytest.raises(DataError, match="must be of a network that works"):
        explorer(blind, graph)
    other = Sensitivity("m", 0.8, {"0.weight": (Point(0.5, 0.7),)}, made_from={"graph": "g"})
    assert "another shape" in explorer(other, graph).notes[0]


def test_channels_that_mix_are_shown_only_where_they_may_be_cut():
    graph = trace(strategies.build(["normalised"], 4), strategies.example(1))
    mixing = next(name for name, group in graph.groups.items() if not group.exact)
    free = next(iter(graph.prunable()))
    curves = curves_of(graph, [mixing, free])
    assert [layer.name for layer in explorer(curves, graph).layers] == [mixing, free]
    exact = explorer(curves, graph, Cutting(inexact=False))
    assert [layer.name for layer in exact.layers] == [free]
