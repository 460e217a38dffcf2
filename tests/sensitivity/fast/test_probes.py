import pytest

from flyweight.sensitivity.fast.probes import by_layer, first_probes, next_probes
from flyweight.sensitivity.scanned_cuts import RATIOS

CUTS = [(layer, ratio) for layer in ("a", "b") for ratio in RATIOS]


def looked(curve, max_drop=0.05):
    """Return the ratios that are looked at of one layer, in order."""
    cuts = [("a", ratio) for ratio in RATIOS]
    losses, order = {}, []
    wanted = first_probes(cuts)
    while wanted:
        order += [ratio for _, ratio in wanted]
        losses |= {cut: curve(cut[1]) for cut in wanted}
        wanted = next_probes(cuts, losses, max_drop)
    return order


def test_ratios_by_layer_rise_and_layers_keep_their_order():
    assert by_layer([("b", 0.5), ("a", 0.2), ("b", 0.1)]) == {"b": [0.1, 0.5], "a": [0.2]}


def test_the_middle_and_the_largest_come_first():
    assert first_probes(CUTS) == [("a", 0.5), ("a", 0.9), ("b", 0.5), ("b", 0.9)]
    assert first_probes([("a", 0.3)]) == [("a", 0.3)]


def test_a_layer_that_is_worth_little_begins_with_its_largest_cut():
    assert first_probes(CUTS, {"a": 2.0, "b": 1.0}) == [("b", 0.9), ("a", 0.5), ("a", 0.9)]


def test_a_flat_curve_needs_no_more():
    assert looked(lambda ratio: 0.01 * ratio) == [0.5, 0.9]


@pytest.mark.parametrize("crossing", [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85])
def test_the_ratios_around_the_crossing_become_known(crossing):
    order = looked(lambda ratio: 0.06 if ratio > crossing else 0.01 * ratio)
    around = {r for r in RATIOS if abs(r - crossing) < 0.06}
    assert around <= set(order)
    assert len(order) <= 5


def test_a_steep_step_is_looked_into_even_above_the_threshold():
    order = looked(lambda ratio: 0.1 if ratio < 0.75 else 0.9)
    assert {0.7, 0.8} <= set(order)
    assert len(order) == len(set(order))


def test_a_dip_behind_the_threshold_asks_for_nothing():
    losses = {("a", 0.5): 0.10, ("a", 0.9): 0.04, ("a", 0.2): 0.01, ("a", 0.3): 0.06}
    assert next_probes([("a", ratio) for ratio in RATIOS], losses, 0.05) == []
