import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.quantization.grids import Grid, grid_of
from flyweight.quantization.ranges import Range


def test_values_after_a_relu_start_at_zero():
    assert grid_of(Range(0.0, 2.55)) == Grid(pytest.approx(0.01), 0)
    assert grid_of(Range(0.5, 2.55)).zero_point == 0


def test_the_scale_after_a_relu6_is_at_most_six_255ths():
    grid = grid_of(Range(0.0, 7.0), at_most=6.0)
    assert np.float32(grid.scale) <= np.float32(6) / np.float32(255)
    assert grid.scale * 255 == pytest.approx(6)
    assert grid_of(Range(0.0, 3.0), at_most=6.0).scale * 255 == pytest.approx(3)


def test_a_half_of_a_sigmoid_is_an_integer():
    grid = grid_of(Range(0.0, 1.0))
    assert np.float32(0.5) / np.float32(grid.scale) == 127
    assert grid_of(Range(0.0, 0.999)).scale * 255 == pytest.approx(0.999)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_every_grid_contains_zero_and_covers_the_range(one, other):
    low, high = sorted((one, other))
    grid = grid_of(Range(low, high))
    assert 0 <= grid.zero_point <= 255
    assert grid.scale * (0 - grid.zero_point) <= min(low, 0) + grid.scale
    assert grid.scale * (255 - grid.zero_point) >= max(high, 0) - grid.scale
