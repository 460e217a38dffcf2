"""Small models and the plans most tests of this room look at."""

import pytest
import torch
from torch import nn

from flyweight.graph import trace


class Shortcut(nn.Module):
    """Two layers make the same six channels; a third makes four of its own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.body = nn.Conv2d(6, 4, 1)
        self.back = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = x + self.back(self.body(x).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Shortcut()


@pytest.fixture
def images():
    return (torch.rand(1, 3, 6, 6),)


@pytest.fixture
def graph(model, images):
    return trace(model, images)


@pytest.fixture(scope="session")
def transformer_graph():
    """Return the graph of a layer whose channels pass a LayerNorm."""
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(6, 2))
    return trace(model, (torch.rand(2, 4),))
