from collections import Counter
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flyweight.data.samples.sampling import StepSampler, Stream, key, keyed_random
from flyweight.errors import ConfigError

SIZES = ((32, 32), (64, 64), (96, 96))


def _steps(count, **options):
    return list(StepSampler(Stream(**options), count, SIZES, 5))


@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 6),
    steps=st.integers(0, 30),
    start=st.integers(0, 30),
    seed=st.integers(0, 2**40),
)
def test_resuming_continues_the_stream(count, batch, steps, start, seed):
    batch = min(batch, count)
    whole = _steps(count, batch_size=batch, steps=steps, seed=seed)
    rest = _steps(count, batch_size=batch, steps=steps, seed=seed, start_step=start)
    assert rest == whole[start:]
    assert len(StepSampler(Stream(batch, steps, start), count, SIZES, 5)) == len(rest)


@given(count=st.integers(8, 40), batch=st.integers(1, 4), world=st.integers(1, 2))
def test_an_epoch_sees_each_picture_at_most_once_over_all_devices(count, batch, world):
    per_epoch = count // (batch * world)
    draws = [
        draw
        for rank in range(world)
        for step in _steps(
            count, batch_size=batch, steps=2 * per_epoch, rank=rank, world_size=world
        )
        for draw in step
    ]
    for epoch in (0, 1):
        seen = Counter(draw.image for draw in draws if draw.epoch == epoch)
        assert set(seen.values()) == {1}
        assert len(seen) == per_epoch * batch * world


def test_devices_share_the_batch_of_one():
    whole = _steps(23, batch_size=6, steps=9, seed=3)
    parts = [
        _steps(23, batch_size=2, steps=9, seed=3, rank=rank, world_size=3) for rank in range(3)
    ]
    assert [list(chain(*shares)) for shares in zip(*parts, strict=True)] == whole


def test_the_order_changes_with_epoch_and_seed():
    stream = _steps(50, batch_size=50, steps=2)
    other = _steps(50, batch_size=50, steps=1, seed=1)
    orders = [[draw.image for draw in step] for step in (*stream, *other)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_a_batch_has_one_size_and_method_and_all_occur():
    steps = _steps(8, batch_size=4, steps=200)
    assert all(len({(draw.size, draw.method) for draw in step}) == 1 for step in steps)
    assert {step[0].size for step in steps} == set(SIZES)
    assert {step[0].method for step in steps} == set(range(5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1. Received 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"start_step": -1}, "start_step must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"world_size": 0}, "world_size must be at least 1"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size. Received 2 of 2"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Stream(**{"batch_size": 1, "steps": 1, **wrong})


def test_refuses_a_step_larger_than_the_set():
    with pytest.raises(ConfigError, match=r"training set has, 7\. Received batch_size 4 on 2 dev"):
        Stream(4, 1, world_size=2).batches_per_epoch(7)
    assert Stream(4, 1, world_size=2).batches_per_epoch(17) == 2


def test_keyed_random_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with keyed_random(1, 2, 3):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with keyed_random(1, 2, 3):
        assert torch.equal(torch.rand(3), first)
    with keyed_random(1, 3, 2):
        assert not torch.equal(torch.rand(3), first)


def test_keys_are_fixed_for_ever():
    """Another value here would make every resumed run differ from its first half."""
    assert key(0, 1, 2) == 1535930435702422785
    assert 0 <= key(2**63) < 2**63
