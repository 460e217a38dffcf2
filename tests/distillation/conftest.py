import math

import pytest
import torch


def wave(shape, rate, phase, size=2.0):
    """Values that are the same everywhere, as the published implementations got them."""
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return (size * torch.sin(places * rate + phase)).reshape(shape).float()


@pytest.fixture
def maps():
    """Features of a student and of its teacher."""
    return wave((2, 3, 4, 5), 0.37, 0.2), wave((2, 3, 4, 5), 0.53, 1.1)


@pytest.fixture
def scores():
    """Scores of a student and of its teacher, and labels."""
    return wave((4, 6), 0.7, 0.3), wave((4, 6), 0.9, 2.0), torch.tensor([0, 5, 2, 2])
