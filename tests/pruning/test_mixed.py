"""Notes on mixed groups, with figures of networks that are cut for real."""

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.config.budget import Budget
from flyweight.errors import PlanError
from flyweight.planning.ranking import Limits, plan_globally
from flyweight.pruning.mixed import mixed_groups, mixed_text, note_on_curves, note_on_ratio, removed


class Mixer(nn.Module):
    """Three groups: one passes a LayerNorm, one a softmax and a GroupNorm, one nothing."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(8, 40)
        self.norm = nn.LayerNorm(40)
        self.deep = nn.Linear(40, 12)
        self.block = nn.GroupNorm(1, 12)
        self.free = nn.Linear(12, 10)
        self.head = nn.Linear(10, 2)

    def forward(self, x):
        x = self.deep(self.norm(self.wide(x)))
        return self.head(self.free(self.block(x).softmax(1)).relu())


@pytest.fixture(scope="module")
def mixer():
    torch.manual_seed(0)
    return Mixer().eval()


@pytest.fixture(scope="module")
def graph(mixer):
    return fw.trace(mixer, (torch.rand(3, 8),))


def share(model, small):
    dense, left = (sum(p.numel() for p in one.parameters()) for one in (model, small))
    return 1 - left / dense


def test_a_plan_of_every_group_says_what_it_leaves(mixer, graph):
    exact, other = fw.plan(graph, 0.5), fw.plan(graph, 0.5, inexact=True)
    one, two = (share(mixer, fw.prune(mixer, made)) for made in (exact, other))
    (note,) = exact.notes
    assert note == (
        "2 groups stay whole because LayerNorm (1), GroupNorm (1) and softmax (1) compute across "
        f"channels: the plan removes {one:.0%} of the parameters, inexact=True {two:.0%} "
        "(fw.repair corrects the normalisations then)."
    )
    assert (one < 0.1, two > 0.5) == (True, True)
    assert other.notes == ()


def test_groups_that_were_named_have_no_note(graph):
    assert fw.plan(graph, {"free.weight": 0.5}).notes == ()


def test_no_note_where_little_is_mixed():
    sizes = [nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 8), nn.ReLU()]
    wide = [nn.Linear(8, 90), nn.ReLU(), nn.Linear(90, 90), nn.ReLU(), nn.Linear(90, 2)]
    model = nn.Sequential(*sizes, *wide)
    graph = fw.trace(model, (torch.rand(3, 8),))
    assert len(mixed_groups(graph)) == 1
    assert fw.plan(graph, 0.5).notes == ()
    assert note_on_ratio(graph, {}, {}) is None


def test_a_ranking_says_how_far_exact_cuts_go(mixer, graph):
    made = plan_globally(graph, budget=Budget(params=0.95))
    (note,) = made.notes
    # At most nine tenths of a group leave: 1 of 10, 4 of 40 and 1 of 12 channels stay.
    keep = {"free.weight": (0,), "wide.weight": (0, 1, 2, 3), "deep.weight": (0,)}
    plans = [
        fw.PruningPlan.of(graph, part, "by hand") for part in (dict([*keep.items()][:1]), keep)
    ]
    one, two = (share(mixer, fw.prune(mixer, made)) for made in plans)
    assert note.endswith(
        f"exact cuts remove at most {one:.0%} of the parameters, inexact=True at most {two:.0%}."
    )
    limits = Limits(inexact=True)
    assert plan_globally(graph, budget=Budget(params=0.9), limits=limits).notes == ()


def test_a_budget_that_exact_cuts_miss_says_so(graph):
    with pytest.raises(PlanError) as caught:
        plan_globally(graph, budget=Budget(macs=0.3))
    message = str(caught.value)
    assert "2 groups stay whole because LayerNorm (1), GroupNorm (1) and softmax (1)" in message
    assert "of the multiply-adds, inexact=True at most " in message


def test_groups_without_a_curve(graph):
    note = note_on_curves(graph, ["free.weight", "wide.weight"])
    gone = removed(graph, {"deep.weight": 0})
    assert note == (
        "1 group stays whole because GroupNorm (1) and softmax (1) compute across channels, and "
        f"has no curve: {gone:.0%} of the parameters depend on it. Scan it with inexact=True to "
        "cut it too."
    )
    assert note_on_curves(graph, ["deep.weight", "wide.weight"]) is None


def test_unknown_operations_keep_their_name(graph):
    (group, *_) = mixed_groups(graph)
    odd = type(group)(group.name, 4, group.members, mixes=("_cumsum at 'a'", "mean at 'b'"))
    assert mixed_text([odd]) == (
        "1 group stays whole because cumsum (1) and mean (1) compute across channels"
    )
