import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.quantization.ranges import BINS, RANGE_METHODS, Range, RangeObserver, range_of


def observed(*batches):
    observer = RangeObserver()
    for batch in batches:
        observer.observe(torch.as_tensor(batch, dtype=torch.float32))
    return observer


@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    )
)
@settings(max_examples=60, deadline=None)
def test_every_value_is_counted_once_and_near_its_place(batches):
    observer = observed(*batches)
    values = np.sort(np.concatenate([np.float32(batch) for batch in batches]).astype(float))
    assert observer.counts.sum() == len(values)
    assert (observer.low, observer.high) == (values[0], values[-1])
    edges = observer.edges
    filled = np.repeat(np.arange(BINS), observer.counts.astype(int))
    width = edges[1] - edges[0]
    # Every widening moves a value by at most half of a bin, which is twice as wide each time.
    slack = 3 * width + 1e-3
    assert np.all(values >= edges[filled] - slack)
    assert np.all(values <= edges[filled + 1] + slack)


def test_the_histogram_stays_as_fine_as_the_range_allows():
    observer = observed([0.0, 1.0], [-3.0], [10.0])
    assert observer.edges[0] <= -3
    assert observer.edges[-1] >= 10
    assert observer.edges[-1] - observer.edges[0] <= 2 * 3 * 13


def test_all_values_by_minmax_and_the_ends_of_batches_by_moving_average():
    observer = observed([-1.0, 1.0], [-2.0, 3.0])
    assert range_of(observer, "minmax") == Range(-2.0, 3.0)
    average = range_of(observer, "moving_average")
    assert average.low == pytest.approx(0.9 * -1 + 0.1 * -2)
    assert average.high == pytest.approx(0.9 * 1 + 0.1 * 3)


def test_a_percentile_cuts_outliers_on_both_sides():
    values = torch.linspace(-1, 1, 20_001)
    observer = observed(values, [-50.0], [80.0])
    found = range_of(observer, "percentile", 99.0)
    assert found.low == pytest.approx(-0.98, abs=0.1)
    assert found.high == pytest.approx(0.98, abs=0.1)
    assert range_of(observer, "percentile", 100.0) == Range(-50.0, 80.0)


def test_least_squares_finds_the_shrink_of_an_exhaustive_search():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(20_000), torch.tensor([9.0])])
    found = range_of(observed(values), "mse")

    def error(high, low):
        scale = (high - low) / 255
        zero = round(-low / scale)
        levels = (torch.round(values / scale) + zero).clamp(0, 255) - zero
        return float(((values - levels * scale) ** 2).sum())

    low, high = float(values.min()), float(values.max())
    best = min(np.linspace(0.3, 1, 141), key=lambda share: error(share * high, share * low))
    assert found.high == pytest.approx(best * high, rel=0.03)
    assert error(found.high, found.low) < error(high, low)


def test_the_least_divergence_drops_a_lonely_outlier_and_keeps_a_flat_distribution():
    torch.manual_seed(0)
    peaked = observed(torch.cat([torch.randn(50_000).abs(), torch.tensor([6.0])]))
    assert range_of(peaked, "kl").high < 5.9
    flat = observed(torch.linspace(0, 1, 50_000))
    assert range_of(flat, "kl").high == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_constant_tensors_have_a_range(method):
    found = range_of(observed([2.0, 2.0]), method)
    assert found.low <= 2.0
    assert found.high == pytest.approx(2.0, rel=0.01)
    assert range_of(observed([0.0]), method) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        observed([1.0, value])


def test_nothing_observed():
    with pytest.raises(ValueError, match="no value"):
        range_of(observed([]), "minmax")
