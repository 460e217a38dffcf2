import random

import numpy as np
import pytest
import torch

from flyweight.engine.loop import is_better, seed_step, summary

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "best", "expected"),
    [
        (0.5, None, True),
        (NAN, None, True),
        (0.5, 0.4, True),
        (0.5, 0.5, False),
        (0.3, 0.4, False),
        (NAN, 0.4, False),
        (0.0, NAN, True),
        (NAN, NAN, False),
    ],
)
def test_what_beats_what(value, best, expected):
    record = None if best is None else {"map": best}
    assert is_better({"map": value}, record, "map") is expected


def test_an_evaluation_of_nothing_beats_nothing():
    assert not is_better({}, {"map": 0.0}, "map")
    assert is_better({"map": 0.0}, {}, "map")


def test_a_step_draws_the_same_whatever_was_drawn_before():
    def draw(*where):
        seed_step(*where)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = draw(7, 3, 0)
    torch.rand(5)
    assert draw(7, 3, 0) == first
    others = [draw(8, 3, 0), draw(7, 4, 0), draw(7, 3, 1)]
    assert len({first, *others}) == 4


def test_single_classes_stay_out_of_the_line():
    assert summary({"map_50": 0.123456, "ap/cat": 1.0}) == "map_50 0.1235"
