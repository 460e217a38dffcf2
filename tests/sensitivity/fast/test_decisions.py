import numpy as np
import pytest

from flyweight.sensitivity.fast.decisions import FastScanSettings, Race
from flyweight.sensitivity.scanned_cuts import BASELINE

CUT, OTHER = ("a", 0.5), ("b", 0.5)


class Mean:
    """The mean of numbers; a state is one number."""

    def __init__(self):
        self.found = []

    def merge(self, state):
        self.found.append(state)

    def compute(self):
        return {"mean": float(np.mean(self.found))}


def race(fast_settings, *layers):
    made = Race("mean", Mean, fast_settings)
    made.join((layer, 0.5) for layer in layers)
    return made


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def test_the_interval_is_that_of_the_paired_ratio():
    hard, own = 10 + 5 * noise(400), noise(400, 1)
    running = race(FastScanSettings(resamples=400), "a")
    running.add(0, {BASELINE: list(hard), CUT: list(0.9 * hard + own)})
    running.estimate(last=True)
    found = running.known[CUT]
    assert running.baseline == pytest.approx(hard.mean())
    assert found.loss == pytest.approx(0.1 - np.mean(own) / hard.mean())
    # What images share cancels: the standard error is that of the rest, not of the values.
    assert found.error == pytest.approx(1.96 * own.std() / 20 / hard.mean(), rel=0.12)
    assert found.images == 400


def test_a_loss_is_a_share_of_the_metric_on_the_same_images():
    running = race(FastScanSettings(max_drop=0.05, precision=0.3), "a")
    running.add(0, {BASELINE: [0.9] * 10, CUT: [0.45] * 10})
    running.estimate(last=False)
    running.join([OTHER])
    for place, level in ((0, 0.9), (1, 0.1)):
        running.add(place, {BASELINE: [level] * 10, OTHER: [level] * 10})
    running.estimate(last=True)
    assert running.baseline == pytest.approx(0.5)
    assert running.losses() == pytest.approx({CUT: 0.5, OTHER: 0.0})


def test_a_cut_leaves_when_it_is_on_one_side_of_the_threshold_and_the_others_run_on():
    running = race(FastScanSettings(max_drop=0.1, precision=1e-6), "a", "b")
    base = np.ones(40)
    dear, close = base - 0.5 + 0.1 * noise(40), base - 0.1 + noise(40)
    for place in range(4):
        share = slice(10 * place, 10 * place + 10)
        states = {BASELINE: list(base[share]), CUT: list(dear[share]), OTHER: list(close[share])}
        running.add(place, states)
    running.estimate(last=False)
    assert running.open == [OTHER]
    assert running.losses()[CUT] == pytest.approx(1 - dear.mean())
    assert set(running.known) == {CUT, OTHER}
    running.estimate(last=True)
    assert running.open == []


def test_a_narrow_interval_is_enough_wherever_it_lies():
    running = race(FastScanSettings(max_drop=0.1, precision=0.02), "a")
    base = np.ones(10)
    running.add(0, {BASELINE: list(base), CUT: list(base - 0.1 + 0.001 * noise(10))})
    running.estimate(last=False)
    assert running.open == []


def test_a_cut_that_joins_later_has_to_catch_up():
    running = race(FastScanSettings(precision=0.0, max_drop=0.0), "a")
    running.add(0, {BASELINE: [1.0, 1.0], CUT: [0.0, 2.0]})
    running.estimate(last=False)
    running.join([OTHER])
    assert running.missing(0) == [OTHER]
    assert set(running.missing(1)) == {BASELINE, CUT, OTHER}
    running.add(0, {OTHER: [0.5, 1.7], CUT: [9.0, 9.0]})
    running.estimate(last=False)
    assert running.known[OTHER].loss == pytest.approx(-0.1)
    assert running.known[CUT].loss == 0  # what it said first counts


def test_a_network_that_finds_nothing_settles_nothing():
    running = race(FastScanSettings(), "a")
    running.add(0, {BASELINE: [0.0, 0.0], CUT: [0.0, 0.0]})
    running.estimate(last=False)
    assert running.open == [CUT]
    assert running.losses() == {CUT: 0.0}
    assert running.known[CUT].error == float("inf")


def test_one_seed_gives_one_result():
    def found(seed):
        running = race(FastScanSettings(seed=seed), "a")
        running.add(0, {BASELINE: [1.0] * 30, CUT: list(1 + noise(30))})
        running.estimate(last=True)
        return running.known[CUT]

    assert found(3) == found(3) != found(4)
