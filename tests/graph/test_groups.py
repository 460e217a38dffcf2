import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.graph.groups import ChannelGroup, Member, span_of


@given(st.integers(1, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_span_gives_back_its_positions(channels, repeat, random):
    places = random.sample(range(50), channels * repeat)
    positions = np.array(places).reshape(channels, repeat)
    member = Member("weight", 0, "produces", span_of(positions))
    assert member.positions(channels).tolist() == positions.tolist()
    assert member.repeat == repeat


@pytest.mark.parametrize(
    ("positions", "span"),
    [
        ([[4], [5], [6]], (4, 1, 1, 1)),
        ([[0, 8], [1, 9], [2, 10]], (0, 1, 2, 8)),
        ([[7, 9]], (7, 1, 2, 2)),
        ([[2], [1], [0]], (2, -1, 1, 1)),
        ([[0], [1], [5]], ((0,), (1,), (5,))),
    ],
)
def test_regular_positions_are_four_numbers(positions, span):
    assert span_of(np.array(positions)) == span


def group(**facts):
    members = (
        Member("conv.weight", 0, "produces", (0, 1, 1, 1)),
        Member("bn.weight", 0, "follows", (0, 1, 1, 1)),
        Member("next.weight", 1, "consumes", (0, 1, 1, 1)),
    )
    return ChannelGroup("conv.weight", 4, members, **facts)


def test_a_free_group_is_exact_and_prunable():
    assert group().exact
    assert group().prunable
    assert [member.tensor for member in group().producers()] == ["conv.weight"]


def test_a_frozen_group_is_not_prunable():
    assert not group(reason="is an output of the model").prunable


def test_a_mixed_group_is_neither_exact_nor_prunable():
    mixed = group(mixes=("layer_norm at 'norm'",))
    assert not mixed.exact
    assert not mixed.prunable
