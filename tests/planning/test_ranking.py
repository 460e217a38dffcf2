"""The global ranking against a slow one that prices whole plans, and against every plan."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import strategies
from torch import nn

from flyweight.config.budget import Budget
from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.planning import ranking
from flyweight.planning.ranking import Limits, plan_globally
from flyweight.pruning import CRITERIA, prune, taylor

QUANTITIES = ("macs", "params")


def priced(graph, kept, quantity):
    full = {name: group.size for name, group in graph.groups.items()}
    return getattr(graph.costs.price({**full, **kept}), quantity)


def next_width(width, least, round_to):
    after = (width - 1) // round_to * round_to
    return after if after >= least else width


def slow_ranking(graph, quantity, share, scores, round_to=1, least=1):
    """Follow the definition: try every next block, price the whole network, take the best."""
    gone = dict.fromkeys(scores, 0)
    order = {name: np.argsort(values, kind="stable") for name, values in scores.items()}
    target = share * priced(graph, {}, quantity)
    while True:
        kept = {name: len(order[name]) - gone[name] for name in scores}
        now = priced(graph, kept, quantity)
        if now <= target:
            break
        best = None
        for place, name in enumerate(scores):
            width = next_width(kept[name], least, round_to)
            saved = now - priced(graph, {**kept, name: width}, quantity)
            if saved:
                block = order[name][gone[name] : gone[name] + kept[name] - width]
                entry = (float(scores[name][block].sum()) / saved, place, name, kept[name] - width)
                best = min(best or entry, entry)
        gone[best[2]] += best[3]
    return {
        name: tuple(sorted(order[name][count:].tolist())) for name, count in gone.items() if count
    }


def normalised(graph, criterion="l1_norm", *, inexact=False):
    found = {}
    for name, group in graph.groups.items():
        if group.reason is None and (group.exact or inexact):
            scores = CRITERIA[criterion](group, graph.tensors)
            # Every layer that makes the channel loses one.
            found[name] = len(group.producers()) * (scores / scores.mean())
    return found


@settings(max_examples=25)
@given(
    model=strategies.networks(),
    quantity=st.sampled_from(QUANTITIES),
    share=st.floats(0.4, 0.95),
    round_to=st.sampled_from([1, 1, 2]),
)
def test_the_ranking_is_that_of_its_definition(model, quantity, share, round_to):
    graph = trace(model, strategies.example())
    limits = Limits(max_ratio=1, inexact=True)
    asked = {quantity: share, "normalise": "mean", "round_to": round_to, "limits": limits}
    least = {n: 1 if g.size < round_to else round_to for n, g in graph.groups.items()}
    reachable = priced(graph, {n: least[n] for n in normalised(graph, inexact=True)}, quantity)
    if reachable > share * priced(graph, {}, quantity):
        with pytest.raises(PlanError, match="the limits allow"):
            plan_globally(graph, **asked)
        return
    made = plan_globally(graph, **asked)
    scores = normalised(graph, inexact=True)
    assert made.keep == slow_ranking(graph, quantity, share, scores, round_to, round_to)
    cost = getattr(made.cost(graph), quantity)
    assert cost <= share * getattr(graph.cost(), quantity)
    assert plan_globally(graph, **asked) == made


@settings(max_examples=15)
@given(model=strategies.networks(), quantity=st.sampled_from(QUANTITIES))
def test_a_smaller_target_removes_a_superset(model, quantity):
    graph = trace(model, strategies.example())
    removed: dict[str, set[int]] = {}
    for share in (0.9, 0.8, 0.7, 0.6, 0.5):
        try:
            made = plan_globally(graph, "l2_norm", **{quantity: share})
        except PlanError:
            break
        now = {n: set(range(g.channels)) - set(g.keep) for n, g in made.groups.items()}
        assert all(gone <= now.get(name, set()) for name, gone in removed.items())
        removed = now


class Branches(nn.Module):
    """Two independent pairs of layers: what one branch saves does not depend on the other."""

    def __init__(self, left=4, right=5):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, left, 3, padding=1), nn.Conv2d(2, right, 1)
        self.left_out, self.right_out = nn.Conv2d(left, 2, 1), nn.Conv2d(right, 2, 3, padding=1)

    def forward(self, x):
        return self.left_out(self.left(x).relu()) + self.right_out(self.right(x).relu())


def every_plan(scores):
    """Yield the kept counts and the loss of every choice that removes lowest scores first."""
    widths = [range(1, len(values) + 1) for values in scores.values()]
    for counts in itertools.product(*widths):
        kept = dict(zip(scores, counts, strict=True))
        yield kept, sum(np.sort(v)[: len(v) - kept[n]].sum() for n, v in scores.items())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.8, 0.55, 0.3])
def test_no_plan_of_all_is_better_by_more_than_the_last_channel(seed, share):
    torch.manual_seed(seed)
    graph = trace(Branches(), (torch.rand(1, 2, 4, 4),))
    scores = normalised(graph)
    target = share * graph.cost().macs
    best = min(loss for kept, loss in every_plan(scores) if priced(graph, kept, "macs") <= target)
    made = plan_globally(graph, macs=share, normalise="mean", limits=Limits(max_ratio=1))
    gone = {n: sorted(set(range(g.channels)) - set(g.keep)) for n, g in made.groups.items()}
    lost = {name: np.sort(scores[name][places]) for name, places in gone.items()}
    total = sum(values.sum() for values in lost.values())
    # Savings do not interact here, so all but the last channel is the best for what it saves:
    # no plan that meets the target loses less.
    kept = {name: len(group.keep) for name, group in made.groups.items()}
    all_but_last = max(
        total - values[-1]
        for name, values in lost.items()
        if priced(graph, {**kept, name: kept[name] + 1}, "macs") > target
    )
    assert all_but_last - 1e-9 <= best <= total + 1e-9


def test_coupled_inputs_and_outputs_are_priced_together():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 8, 1))
    graph = trace(model, (torch.rand(1, 1, 1, 1),))

    def flat(group, tensors):
        return np.ones(group.size)

    # One channel of the first saves 1 + 6 MACs, one of the second 4 + 8, then 3 + 8, ...
    # The second group leaves first; at 4 left, one of the first saves 1 + 4 < 4 + 8.
    made = plan_globally(graph, flat, macs=(4 + 4 * 4 + 4 * 8) / (4 + 24 + 48), normalise="none")
    assert made.keep == {"1.weight": (2, 3, 4, 5)}
    assert made.cost(graph).macs == 4 + 16 + 32


def test_equal_scores_leave_in_the_order_of_the_graph():
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4)))
    graph = trace(model, (torch.rand(1, 4, 2, 2),))
    made = [plan_globally(graph, lambda g, t: [1.0] * g.size, macs=0.93) for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert made[0].keep == {"0.weight": (1, 2, 3)}


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_widths_that_change_become_multiples(share):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 50, 3), nn.Conv2d(50, 33, 3), nn.Conv2d(33, 7, 3), nn.Conv2d(7, 2, 1)
    )
    graph = trace(model, (torch.rand(1, 3, 12, 12),))
    made = plan_globally(graph, macs=share, round_to=8)
    assert made.groups
    assert all(len(group.keep) % 8 == 0 for group in made.groups.values())
    assert "2.weight" not in made.groups  # fewer than eight stay whole
    assert made.cost(graph).macs <= share * graph.cost().macs
    small = prune(model, made)
    assert trace(small, (torch.rand(1, 3, 12, 12),)).cost() == made.cost(graph)


def test_no_group_loses_more_than_its_limit(graph):
    def worthless(group, tensors):
        return np.zeros(group.size)

    made = plan_globally(graph, worthless, macs=0.6, limits=Limits(max_ratio=0.5))
    assert all(2 * len(group.keep) >= group.channels for group in made.groups.values())
    everything = plan_globally(graph, worthless, macs=0.21, limits=Limits(max_ratio=1))
    assert {len(group.keep) for group in everything.groups.values()} == {1}


def test_a_target_beyond_the_limits_says_what_can_be_had(graph):
    with pytest.raises(PlanError) as caught:
        plan_globally(graph, macs=0.1, limits=Limits(max_ratio=0.5))
    message = str(caught.value)
    assert "Received macs=0.1; what may be cut leaves 0." in message
    reachable = float(message.split("leaves ")[1].split(". Give")[0])
    plan_globally(graph, macs=reachable + 0.001, limits=Limits(max_ratio=0.5))
    with pytest.raises(PlanError):
        plan_globally(graph, macs=reachable - 0.001, limits=Limits(max_ratio=0.5))


def test_only_the_groups_that_are_named_are_cut(graph):
    made = plan_globally(graph, params=0.8, limits=Limits(groups=("back.weights",)))
    assert set(made.groups) == {"stem.weight"}
    with pytest.raises(PlanError, match="which is an output of the model"):
        plan_globally(graph, params=0.8, limits=Limits(groups=("head.weight",)))
    with pytest.raises(PlanError, match=r"Nearest: 'back.weight'"):
        plan_globally(graph, params=0.8, limits=Limits(groups=("bakc.weight",)))


def test_mixed_groups_take_part_only_when_asked_for(transformer_graph):
    assert set(plan_globally(transformer_graph, macs=0.8).groups) == {"2.weight"}
    limits = Limits(groups=("0.weight",), inexact=True)
    assert set(plan_globally(transformer_graph, macs=0.7, limits=limits).groups) == {"0.weight"}
    with pytest.raises(PlanError, match="inexact=True"):
        plan_globally(transformer_graph, macs=0.7, limits=Limits(groups=("0.weight",)))


def test_a_plan_says_how_it_was_made(graph):
    assert plan_globally(graph, macs=0.5).criterion == "l1_norm, all groups ranked, macs=0.5"


SCORES = np.array([2.0, 1.0, 4.0, 1.0])


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("mean", [1.0, 0.5, 2.0, 0.5]),
        ("max", [0.5, 0.25, 1.0, 0.25]),
        # Squares over the sums of those that come not before: 1/22, 1/21, 4/20, 16/16.
        ("lamp", [4 / 20, 1 / 22, 1.0, 1 / 21]),
        ("none", [2.0, 1.0, 4.0, 1.0]),
    ],
)
def test_how_scores_become_comparable(normalise, expected):
    np.testing.assert_allclose(ranking._NORMALISE[normalise](SCORES), expected)
    np.testing.assert_array_equal(ranking._NORMALISE[normalise](np.zeros(3)), np.zeros(3))


def test_the_normalisation_decides_between_groups(graph):
    def quiet_body(group, tensors):
        return np.arange(1, group.size + 1) * (1e-6 if group.name == "body.weight" else 1.0)

    def groups(**options):
        return plan_globally(graph, quiet_body, macs=0.6, **options).groups

    assert "body.weight" not in groups(normalise="mean")
    assert "body.weight" in groups(normalise="none")
    # By itself: as they are where the criterion says that its scores have one unit.
    assert groups() == groups(normalise="lamp")
    quiet_body.comparable = True
    assert groups() == groups(normalise="none")


def test_taylor_scores_are_ranked_as_they_are(model, graph):
    batches = [(torch.randn(4, 3, 6, 6),)]
    criterion = taylor(model, batches, lambda twin, batch: twin(batch[0]).square().mean())
    made = plan_globally(graph, criterion, macs=0.6)
    assert made.groups == plan_globally(graph, criterion, macs=0.6, normalise="none").groups
    assert made.criterion == "taylor, all groups ranked, macs=0.6"


@pytest.mark.parametrize("normalise", ["mean", "max", "lamp"])
def test_a_channel_counts_for_every_layer_that_makes_it(graph, normalise):
    """A residual sum of two layers loses two filters with every channel."""

    for name, layers in (("stem.weight", 2), ("body.weight", 1)):
        group = graph.groups[name]
        scores = np.arange(1.0, group.size + 1)
        found = ranking._comparable(group, scores, normalise)
        np.testing.assert_allclose(found, layers * ranking._NORMALISE[normalise](scores))


def test_groups_without_any_difference_are_cut_alike():
    """Their last channels are dear, so that no group pays for all."""
    model = nn.Sequential(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 1))
    graph = trace(model, (torch.rand(1, 8, 2, 2),))

    def widths(normalise):
        made = plan_globally(graph, lambda g, _: np.ones(g.size), macs=0.4, normalise=normalise)
        return [len(made.keep.get(name, range(64))) for name in graph.prunable()]

    assert abs(np.diff(widths("lamp"))[0]) <= 1
    assert min(widths("mean")) < min(widths("lamp"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Received macs=None, params=None"),
        ({"macs": 0.5, "params": 0.5}, "Received macs=0.5, params=0.5"),
        ({"macs": 1.0}, "Received macs=1.0"),
        ({"params": 0}, "params=0."),
        ({"macs": True}, "Received macs=True"),
        ({"macs": "0.5"}, "Received macs='0.5'"),
        ({"macs": float("nan")}, "Received macs=nan"),
        ({"macs": 0.5, "normalise": "maen"}, "Received 'maen'. Nearest: 'mean'."),
        ({"macs": 0.5, "round_to": 0}, "Received 0."),
        ({"macs": 0.5, "limits": Limits(max_ratio=0)}, "Received 0. Leave a group out"),
        ({"macs": 0.5, "limits": Limits(max_ratio=float("nan"))}, "Received nan."),
        ({"macs": 0.5, "criterion": "first"}, "must not be negative. Received -5 for group 'stem"),
        ({"macs": 0.5, "criterion": "l1norm"}, "Nearest: 'l1_norm'."),
    ],
)
def test_values_that_cannot_be_meant(graph, options, said):
    with pytest.raises(PlanError) as caught:
        plan_globally(graph, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_is_a_share_or_an_amount(graph):
    total = graph.cost()
    for quantity in ("macs", "params", "size_bytes"):
        dense = getattr(total, quantity)
        made = plan_globally(graph, budget=Budget(**{quantity: 0.7}))
        assert getattr(made.cost(graph), quantity) <= 0.7 * dense
        if quantity != "size_bytes":
            assert made == plan_globally(graph, **{quantity: 0.7})
    amount = plan_globally(graph, budget=Budget(macs=0.7 * total.macs))
    assert amount.groups == plan_globally(graph, macs=0.7).groups


def test_one_budget_and_no_latency(graph):
    with pytest.raises(PlanError, match=r"Received macs=0\.5, params=None and budget=macs=0\.5"):
        plan_globally(graph, macs=0.5, budget=Budget(macs=0.5))
    with pytest.raises(PlanError, match="must limit macs, params or size_bytes"):
        plan_globally(graph, budget=Budget(latency_share=0.5))
    with pytest.raises(TypeError, match="unexpected keyword argument 'flops'"):
        plan_globally(graph, flops=0.5)
