import numpy as np
import pytest

from flyweight.sensitivity.cuts import BASELINE
from flyweight.sensitivity.race import Pace, Race

CUT, OTHER = ("a", 0.5), ("b", 0.5)


class Mean:
    """The mean of numbers; a state is one number."""

    def __init__(self):
        self.found = []

    def merge(self, state):
        self.found.append(state)

    def compute(self):
        return {"mean": float(np.mean(self.found))}


def race(pace, **cuts):
    return Race.of("mean", Mean, pace, [(layer, 0.5) for layer in cuts])


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def test_the_interval_is_that_of_the_paired_difference():
    hard, own = 10 + 5 * noise(400), noise(400, 1)
    running = race(Pace(first=10**6, resamples=400), a=1)
    running.add({BASELINE: list(hard), CUT: list(hard - 1 + own)})
    found = running.finish()[CUT]
    assert found.change == pytest.approx(np.mean(own) - 1)
    # What pictures share cancels: the standard error is that of the differences, not of the values.
    assert found.error == pytest.approx(1.96 * own.std() / 20, rel=0.12)
    assert found.pictures == 400


def test_a_cut_leaves_when_it_is_on_one_side_of_the_threshold_and_the_others_run_on():
    running = race(Pace(max_drop=0.1, precision=1e-6, first=40), a=1, b=1)
    base = np.ones(40)
    dear, close = base - 0.5 + 0.1 * noise(40), base - 0.1 + noise(40)
    for place in range(40):
        states = {BASELINE: [base[place]], CUT: [dear[place]], OTHER: [close[place]]}
        assert set(running.open) == {CUT, OTHER}
        running.add(states)
    assert running.open == [OTHER]
    assert running.settled[CUT].change == pytest.approx((dear - 1).mean())
    assert set(running.finish()) == {CUT, OTHER}


def test_a_narrow_interval_is_enough_wherever_it_lies():
    running = race(Pace(max_drop=0.1, precision=0.02, first=10), a=1)
    base = np.ones(10)
    running.add({BASELINE: list(base), CUT: list(base - 0.1 + 0.001 * noise(10))})
    assert running.open == []


def test_looks_come_at_growing_numbers_of_pictures():
    running = race(Pace(first=10, growth=2.0, precision=1e-9, max_drop=0.0), a=1)
    looks = []
    running._look = lambda *, last: looks.append(len(running.running[BASELINE]))
    for value in noise(45):
        running.add({BASELINE: [1.0], CUT: [1.0 + value]})
    assert looks == [10, 20, 40]


def test_a_network_that_finds_nothing_settles_nothing():
    running = race(Pace(first=2), a=1)
    running.add({BASELINE: [0.0, 0.0], CUT: [0.0, 0.0]})
    assert running.open == [CUT]
    assert running.finish()[CUT].change == 0


def test_one_seed_gives_one_result():
    def found(seed):
        running = race(Pace(first=10**6, seed=seed), a=1)
        running.add({BASELINE: [1.0] * 30, CUT: list(1 + noise(30))})
        return running.finish()[CUT]

    assert found(3) == found(3) != found(4)
