import numpy as np
import pytest

from flyweight.measuring import bootstrap


def simulated(seed, *, blocks=20, runs=20, drift=0.05, level=1.0):
    generator = np.random.default_rng(seed)
    states = 1 + drift * generator.standard_normal(blocks)
    noise = 1 + 0.02 * generator.standard_normal((blocks, runs))
    return (level * states[:, None] * noise).tolist()


def test_resampled_medians_equal_medians_of_the_resampled_values():
    blocks = [[3.0, 1.0], [2.0], [5.0, 4.0, 9.0, 7.0]]
    draws = bootstrap._draws(3, seed=1)[:50]
    found = bootstrap._resampled_medians(blocks, draws)
    for counts, median in zip(draws, found, strict=True):
        values = [v for block, n in zip(blocks, counts, strict=True) for v in block * n]
        assert median == np.median(values)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        low, high = bootstrap.median_interval(simulated(seed))
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 100 <= 1.0


def test_single_runs_would_be_far_too_sure():
    # The reason for blocks: of runs that share their block's state, single ones say little.
    covered = 0
    for seed in range(60):
        singles = [[value] for block in simulated(seed, runs=5) for value in block]
        low, high = bootstrap.median_interval(singles)
        covered += low <= 1.0 <= high
    assert covered / 60 < 0.75


def test_the_ratio_of_a_row_with_itself_is_exactly_one():
    blocks = simulated(0)
    assert bootstrap.ratio_interval(blocks, blocks) == (1.0, 1.0)


def test_the_ratio_cancels_drift_that_both_rows_share():
    generator = np.random.default_rng(0)
    drift = 1 + np.linspace(0, 0.5, 20)[:, None]
    noise = 1 + 0.01 * generator.standard_normal((2, 20, 15))
    slow, fast = 1.1 * drift * noise[0], drift * noise[1]
    low, high = bootstrap.ratio_interval(slow.tolist(), fast.tolist())
    alone = bootstrap.median_interval(fast.tolist())
    assert 1.05 < low < 1.1 < high < 1.15
    assert high - low < (alone[1] - alone[0]) / 2


def test_unequal_rounds_cannot_be_paired():
    with pytest.raises(ValueError, match="same number of blocks"):
        bootstrap.ratio_interval([[1.0]], [[1.0], [2.0]])


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap.median_interval(simulated(3)) == bootstrap.median_interval(simulated(3))
