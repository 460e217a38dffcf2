from dataclasses import replace

import pytest
import torch
from tests.measuring.conftest import invent
from tests.measuring.machine import blocked
from torch import nn

from flyweight.config.cuts import BudgetCut
from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import MeasureError, PlanError
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.latency_table import read_table
from flyweight.measuring.table_builder import measure_layers
from flyweight.pipeline.latency_cuts import (
    NetworkTimer,
    fitted_cut,
    measured_table,
    timing_of,
)
from flyweight.pipeline.network_plans import plan_cut, prices_of, trace_model
from flyweight.sensitivity import Budget, Point, Sensitivity, Timing

SQUARE = Preprocessing(height=16, width=16)


def network(width=64):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 1)),
    ).eval()


@pytest.fixture
def wanted(tmp_path):
    """Return a cut whose table is of a machine with blocks of 8 channels."""
    graph = trace_model(network(), SQUARE)
    measure_layers(graph, tmp_path / "t.json", timer=blocked(8))
    curves = {
        name: tuple(Point(r / 10, 0.8 - steep * r / 10) for r in range(1, 10))
        for name, steep in (("0.weight", 0.1), ("2.weight", 0.2))
    }
    Sensitivity("m", 0.8, curves).save(tmp_path / "s.json")

    def make(budget):
        scan, table = str(tmp_path / "s.json"), str(tmp_path / "t.json")
        return BudgetCut(scan, Budget.parse(budget), latency_table=table)

    return graph, make


class Stub:
    """A timer of networks that are never built."""

    runtime = "onnxruntime"

    def __init__(self, graph, prices):
        self.graph, self.prices = graph, prices

    def pruned(self, ratios):
        kept = {
            name: round(self.graph.groups[name].size * (1 - ratio))
            for name, ratio in ratios.items()
        }
        share = self.prices.sum_ms(kept) / self.prices.sum_ms({})
        latency = 10 * (0.1 + 0.9 * share**1.3)
        return Timing(latency, (latency, latency), 10.0)


def test_a_budget_becomes_ratios(wanted):
    graph, make = wanted
    cut = make("latency_ms=6")
    prices = prices_of(cut, graph)
    said = []
    found, fitted = fitted_cut(cut, Stub(graph, prices), say=said.append)
    assert fitted.chosen.timing.latency_ms <= 6
    assert type(found).__name__ == "RatioCut"
    made = plan_cut(graph, found)
    assert {name: len(group.keep) for name, group in made.groups.items()} == {
        name: keep for name, keep in fitted.kept.items() if keep < 64
    }
    assert all(keep % 8 == 0 for keep in fitted.kept.values())
    assert [line.split(":")[0] for line in said[:-1]] == [
        f"round {k + 1}" for k in range(len(fitted.rounds))
    ]
    assert said[-1] == fitted.verdict


def test_a_dry_run_predicts(wanted):
    graph, make = wanted
    cut = make("latency_share=0.6")
    made = plan_cut(graph, cut)
    prices = prices_of(cut, graph)
    kept = {name: len(group.keep) for name, group in made.groups.items()}
    assert prices.sum_ms(kept) <= 0.6 * prices.sum_ms({})
    assert read_table(cut.latency_table).threads == 1


def test_nothing_to_cut(wanted):
    graph, make = wanted
    cut = make("latency_ms=11")
    with pytest.raises(PlanError, match=r"the dense network takes 10\.000 ms"):
        fitted_cut(cut, Stub(graph, prices_of(cut, graph)), say=lambda _: None)


def test_on_a_noisy_machine_processor_time_counts():
    quiet, small = invent("dense", 20.0), invent("pruned", 9.0, seed=1)
    found = timing_of(quiet, small)
    assert (found.latency_ms, found.dense_ms, found.note) == (small.median_ms, quiet.median_ms, "")
    blocks = tuple(7.0 + 0.01 * k for k in range(-10, 11))
    busy = replace(small, notes=("NOISY MACHINE: busy",), cpu_ms=7.0, blocks_cpu_ms=blocks)
    found = timing_of(replace(quiet, cpu_ms=15.0), busy)
    assert (found.latency_ms, found.dense_ms) == (7.0, 15.0)
    low, high = found.interval_ms
    assert 6.9 <= low < 7 < high <= 7.1
    assert "processor time" in found.note
    two = timing_of(replace(quiet, threads=2), replace(busy, threads=2))
    assert (two.latency_ms, two.note) == (small.median_ms, "NOISY MACHINE")


@pytest.mark.slow
def test_networks_are_measured_on_the_runtime(tmp_path):
    with NetworkTimer(network(), SQUARE, seconds=0.2) as timer:
        table = measured_table(timer, tmp_path / "t.json")
        dense = table.whole.popitem()[1]
        found = timer.pruned({"0.weight": 0.75, "2.weight": 0.75})
    assert table.step in (1, 4, 8, 16, 32)
    assert dense > 0
    low, high = found.interval_ms
    assert 0 < low <= found.latency_ms <= high
    assert found.latency_ms < found.dense_ms  # a tenth of the products
    assert LatencyPrices.of(timer.graph, table).sum_ms({}) > 0


def test_a_table_of_another_runtime_does_not_fit(wanted):
    graph, make = wanted
    cut = make("latency_ms=6")
    assert read_table(cut.latency_table).runtime == "onnxruntime"
    timer = Stub(graph, prices_of(cut, graph))
    timer.runtime = "openvino"
    with pytest.raises(MeasureError, match="for a budget on openvino"):
        fitted_cut(cut, timer, say=lambda _: None)
