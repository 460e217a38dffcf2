import math

import pytest
from pydantic import ValidationError

from flyweight.config.training import TrainConfig, due, learning_rate_at


def test_steps_with_warm_up_by_hand():
    # The original's schedule A, a thousandth as long: 1e-3, x0.1 at 400 and 450, warm-up 4 from 0.
    config = TrainConfig(steps=500, learning_rate=1e-3, milestones=(400, 450), warmup_steps=4)
    expected = {0: 0.0, 1: 2.5e-4, 2: 5e-4, 3: 7.5e-4, 4: 1e-3, 399: 1e-3}
    expected |= {400: 1e-4, 449: 1e-4, 450: 1e-5, 499: 1e-5}
    for step, rate in expected.items():
        assert learning_rate_at(config, step) == pytest.approx(rate, rel=1e-12), step


def test_warm_up_from_a_third():
    config = TrainConfig(steps=100, learning_rate=0.3, warmup_steps=2, warmup_start_factor=1 / 3)
    found = [learning_rate_at(config, step) for step in (0, 1, 2)]
    assert found == pytest.approx([0.1, 0.2, 0.3], rel=1e-12)


def test_cosine_with_warm_up_by_hand():
    config = TrainConfig(steps=8, learning_rate=0.4, schedule="cosine", warmup_steps=2)
    half = math.sqrt(0.5)
    expected = {0: 0.0, 2: 0.2 * (1 + half), 4: 0.2, 6: 0.2 * (1 - half), 8: 0.0}
    expected[1] = 0.5 * 0.2 * (1 + math.cos(math.pi / 8))
    for step, rate in expected.items():
        assert learning_rate_at(config, step) == pytest.approx(rate, abs=1e-15), step


def test_poly_by_hand():
    config = TrainConfig(steps=4, learning_rate=2.0, schedule="poly", power=0.5)
    found = [learning_rate_at(config, step) for step in range(5)]
    assert found == pytest.approx([2.0, 2 * 0.75**0.5, 2 * 0.5**0.5, 1.0, 0.0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"milestones": (5, 5)}, r"milestones must rise within 1\.\.9"),
        ({"milestones": (4, 10)}, r"Received: \[4, 10\]"),
        ({"milestones": (0,)}, "milestones must rise"),
        ({"milestones": (5,), "schedule": "cosine"}, "belong to schedule 'step'"),
        ({"milestones": (5,), "schedule": "poly"}, "belong to schedule 'step'"),
        ({"warmup_steps": 11}, r"at most steps \(10\)\. Received: 11"),
        ({"devices": 0}, r"at least 1, or 'auto'\. Received: 0"),
        ({"lerning_rate": 1.0}, "lerning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        TrainConfig(steps=10, **given)


def test_a_config_survives_json_and_does_not_change():
    config = TrainConfig(steps=10, milestones=(3, 7), devices="auto", ema_decay=0.99)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3


def test_without_a_period_things_are_due_at_the_end_only():
    assert [done for done in range(1, 6) if due(None, done, 5)] == [5]
