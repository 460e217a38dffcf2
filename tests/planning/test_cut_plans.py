"""One function makes the plan of every kind of cut, for Python and the command line alike."""

import pytest
import torch
from tests.measuring.machine import blocked
from torch import nn

import flyweight as fw
from flyweight.config.budget import Budget
from flyweight.config.cuts import BudgetCut, MaxDropCut, RankingCut, RatioCut
from flyweight.errors import PlanError
from flyweight.measuring.latency_prices import LatencyPrices
from flyweight.measuring.table_builder import measure_layers
from flyweight.pipeline import network_plans
from flyweight.planning.cut_plans import PlanRules, plan_cut
from flyweight.sensitivity import Point, Sensitivity

FIRST, SECOND = "0.weight", "2.weight"


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)),
        *(nn.ReLU(), nn.Conv2d(16, 2, 1)),
    )
    return fw.trace(model.eval(), (torch.rand(1, 3, 8, 8),))


@pytest.fixture(scope="module")
def curves(graph):
    points = {
        name: tuple(Point(r / 10, 0.8 * (1 - steep * r / 10)) for r in range(1, 10))
        for name, steep in ((FIRST, 0.1), (SECOND, 0.3))
    }
    return Sensitivity("m", 0.8, points, graph=graph)


def test_ratios(graph):
    made = plan_cut(graph, RatioCut((FIRST,), (0.5,), "l2_norm", 4))
    assert made == fw.plan(graph, {FIRST: 0.5}, "l2_norm", round_to=4)
    assert plan_cut(graph, RatioCut(("all",), (0.25,))) == fw.plan(graph, 0.25)
    old = PlanRules(aliases={"conv1": FIRST})
    assert plan_cut(graph, RatioCut(("conv1",), (0.5,)), rules=old).keep.keys() == {FIRST}


def test_a_max_drop(graph, curves):
    cut = MaxDropCut("s.json", 0.05)
    made = plan_cut(graph, cut, losses=curves.all_losses())
    assert made == curves.plan(max_drop=0.05)
    assert {name: len(group.keep) for name, group in made.groups.items()} == {FIRST: 8, SECOND: 13}


def test_layers_of_a_scan_that_the_network_lacks(graph, curves):
    cut = MaxDropCut("s.json", 0.05)
    losses = {**curves.all_losses(), "9.weight": {0.5: 0.0}}
    with pytest.raises(PlanError, match="Received '9"):
        plan_cut(graph, cut, losses=losses)
    skipped = plan_cut(graph, cut, losses=losses, rules=PlanRules(skip_unknown=True))
    assert skipped == plan_cut(graph, cut, losses=curves.all_losses())
    with pytest.raises(PlanError, match="1 layer, and none is"):
        plan_cut(graph, cut, losses={"9.weight": {0.5: 0.0}}, rules=PlanRules(skip_unknown=True))


def test_a_budget(graph, curves):
    cut = BudgetCut("s.json", fw.Budget(macs=0.6), round_to=2)
    made = plan_cut(graph, cut, losses=curves.all_losses())
    assert made == curves.plan(budget=fw.Budget(macs=0.6), round_to=2)
    assert made.cost(graph).macs <= 0.6 * graph.cost().macs
    with pytest.raises(PlanError, match=r"must come with its curves. Received none for 's\.json'"):
        plan_cut(graph, cut)


def test_a_latency_budget(graph, curves, tmp_path):
    prices = LatencyPrices.of(graph, measure_layers(graph, tmp_path / "t.json", timer=blocked(8)))
    cut = BudgetCut("s.json", fw.Budget(latency_share=0.7), latency_table="t.json")
    made = plan_cut(graph, cut, losses=curves.all_losses(), prices=prices)
    kept = {name: len(group.keep) for name, group in made.groups.items()}
    assert prices.predict_ms(kept) <= 0.7 * prices.predict_ms({})
    assert kept
    assert all(keep % 8 == 0 for keep in kept.values())
    with pytest.raises(PlanError, match="must come with a table"):
        plan_cut(graph, cut, losses=curves.all_losses())


@pytest.mark.parametrize("budget", [fw.Budget(macs=0.6), fw.Budget(size_bytes=5000)])
def test_a_ranking(graph, budget):
    made = plan_cut(graph, RankingCut("l2_norm", budget, 2))
    assert made == fw.plan_globally(graph, "l2_norm", budget=budget, round_to=2)
    assert getattr(made.cost(graph), budget.quantity) <= budget.limit(graph.cost())


def test_a_measured_criterion_takes_the_place_of_its_name(graph, curves):
    def last(group, tensors):
        return range(group.size)

    for cut in (RatioCut((FIRST,), (0.5,), "taylor"), MaxDropCut("s", 0.05, "taylor")):
        made = plan_cut(graph, cut, losses=curves.all_losses(), scorer=last)
        assert made.groups[FIRST].keep == tuple(range(8, 16))
        with pytest.raises(PlanError, match="'taylor' needs data"):
            plan_cut(graph, cut, losses=curves.all_losses())
    ranked = plan_cut(graph, RankingCut("taylor", fw.Budget(macs=0.9)), scorer=last)
    assert ranked.criterion.startswith("last, all groups ranked")


def test_the_command_line_makes_its_plans_here(graph, curves, tmp_path):
    curves.save(tmp_path / "s.json")
    rules = PlanRules(local=True, skip_unknown=True)
    for cut in (
        RatioCut((FIRST, SECOND), (0.5, 0.25)),
        MaxDropCut(str(tmp_path / "s.json"), 0.05),
        BudgetCut(str(tmp_path / "s.json"), fw.Budget(params=0.7)),
        RankingCut("l1_norm", fw.Budget(params=0.7)),
    ):
        expected = plan_cut(graph, cut, losses=curves.all_losses(), rules=rules)
        assert network_plans.plan_cut(graph, cut) == expected


def test_a_budget_by_curves_names_the_groups_that_none_covers(transformer_graph):
    cut = BudgetCut("curves", Budget(params=0.8))
    made = plan_cut(transformer_graph, cut, losses={"2.weight": {0.5: 0.1, 0.9: 0.2}})
    (note,) = made.notes
    assert note.startswith("1 group stays whole because LayerNorm (1) computes across channels")
    # Of 124 parameters, 32 + 8 of the layer, 16 of the norm and 48 of the next layer.
    assert "has no curve: 84% of the parameters depend on it. Scan it with inexact=True" in note
    losses = {"2.weight": {0.5: 0.1}, "0.weight": {0.5: 0.3}}
    whole = plan_cut(transformer_graph, cut, losses=losses, rules=PlanRules(inexact=True))
    assert whole.notes == ()


def test_a_budget_that_curves_miss_names_them_too(transformer_graph):
    cut = BudgetCut("curves", Budget(params=0.3))
    with pytest.raises(PlanError, match=r"larger ratios\. 1 group stays whole because LayerNorm"):
        plan_cut(transformer_graph, cut, losses={"2.weight": {0.5: 0.1}})
