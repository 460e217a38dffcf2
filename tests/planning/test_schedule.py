import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.planning.schedule import ratios_per_step
from flyweight.pruning import plan, prune

SHAPES = ("cubic", "linear", "geometric")


@given(
    ratio=st.floats(0.01, 0.99),
    steps=st.integers(1, 30),
    shape=st.sampled_from(SHAPES),
)
def test_all_steps_together_remove_the_ratio(ratio, steps, shape):
    found = ratios_per_step(ratio, steps, shape)
    assert len(found) == steps
    assert all(0 < step < 1 for step in found)
    assert math.isclose(math.prod(1 - step for step in found), 1 - ratio, rel_tol=1e-9)


def test_the_cubic_shape_is_that_of_the_paper():
    ratio, steps = 0.8, 5
    left = 1.0
    for done, step in enumerate(ratios_per_step(ratio, steps), 1):
        left *= 1 - step
        # Equation 1 of arXiv 1710.01878 with s_i = 0, t_0 = 0: s_f + (s_i - s_f)(1 - t / n)^3.
        assert math.isclose(1 - left, ratio + (0 - ratio) * (1 - done / steps) ** 3)


def test_linear_steps_remove_as_many_and_geometric_ones_the_same_share():
    left, gone = 1.0, []
    for step in ratios_per_step(0.6, 3, "linear"):
        gone.append(left * step)
        left -= gone[-1]
    assert gone == pytest.approx([0.2] * 3)
    assert ratios_per_step(0.875, 3, "geometric") == pytest.approx([0.5] * 3)


def test_plans_of_all_steps_compose():
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 2, 1))
    images = (torch.rand(1, 3, 8, 8),)
    small = model
    for ratio in ratios_per_step(0.5, 3):
        small = prune(small, plan(trace(small, images), ratio))
    once = prune(model, plan(trace(model, images), 0.5))
    assert abs(small[0].out_channels - once[0].out_channels) <= 1


@pytest.mark.parametrize("ratio", [0, 1, -0.5, float("nan"), True, "0.5", None])
def test_a_ratio_that_cannot_be_meant(ratio):
    with pytest.raises(PlanError, match="strictly between 0 and 1") as caught:
        ratios_per_step(ratio, 3)
    assert f"Received {ratio!r}" in str(caught.value)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_steps_that_cannot_be_meant(steps):
    with pytest.raises(PlanError, match="whole number of at least 1"):
        ratios_per_step(0.5, steps)


def test_an_unknown_shape_gets_the_nearest():
    with pytest.raises(PlanError, match=r"Received 'cubik'\. Nearest: 'cubic'"):
        ratios_per_step(0.5, 3, "cubik")
