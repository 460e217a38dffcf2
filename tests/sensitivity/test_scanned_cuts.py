import pytest
from tests import strategies

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.pruning import plan
from flyweight.sensitivity.scanned_cuts import Cuts, digest_of


def graph():
    return trace(strategies.build(["chain", "residual", "normalised"]), strategies.example(1))


def test_every_ratio_of_every_exact_group_has_the_plan_that_prune_would_make():
    found = graph()
    plans = Cuts((0.5, 0.25)).plans(found)
    exact = [g.name for g in found.groups.values() if g.reason is None and g.exact]
    assert list(dict.fromkeys(layer for layer, _ in plans)) == exact
    for (layer, ratio), made in plans.items():
        assert made.keep == plan(found, {layer: ratio}).keep
    assert [ratio for layer, ratio in plans if layer == exact[0]] == [0.25, 0.5]


def test_ratios_that_remove_nothing_are_left_out_and_none_left_is_a_mistake():
    found = graph()
    assert {ratio for _, ratio in Cuts((0.001, 0.5)).plans(found)} == {0.5}
    with pytest.raises(PlanError, match="remove no channel"):
        Cuts((0.001,)).plans(found)


def test_the_digest_tells_what_is_cut():
    found = graph()
    half = Cuts((0.5,)).plans(found)
    assert digest_of(half) == digest_of(dict(reversed(half.items())))
    assert digest_of(half) != digest_of(Cuts((0.25,)).plans(found))
    assert digest_of(half) != digest_of(Cuts((0.5,), criterion="random").plans(found))
