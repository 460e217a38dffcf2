import random

import numpy as np
import pytest
import torch

from flyweight.graph import trace
from flyweight.graph.random_states import own_random_numbers


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seeded():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def test_numbers_inside_leave_those_outside_alone():
    seeded()
    wanted = drawn()
    seeded()
    with own_random_numbers():
        drawn()
    assert drawn() == wanted


def test_a_seed_gives_the_same_numbers():
    with own_random_numbers(seed=1):
        one = drawn()
    with own_random_numbers(seed=1):
        assert drawn() == one


def test_an_error_gives_the_states_back():
    seeded()
    wanted = drawn()
    seeded()
    with pytest.raises(ValueError, match="stop"), own_random_numbers(seed=1):
        raise ValueError("stop")
    assert drawn() == wanted


class Noisy(torch.nn.Conv2d):
    def forward(self, images):
        return super().forward(images) * np.random.rand() + random.random()


def test_a_trace_leaves_the_numbers_of_the_program_alone():
    model = Noisy(3, 4, 3)  # Its weights are drawn.
    seeded()
    wanted = drawn()
    seeded()
    trace(model, (torch.zeros(1, 3, 8, 8),))
    assert drawn() == wanted
