import pytest
import torch
from torch import nn

from flyweight.graph import trace, trial_runs

IMAGES = (torch.rand(2, 3, 8, 8),)


class Scaled(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 4, 1)
        self.code = code

    def forward(self, x):
        return self.c(self.b(self.code(self.a(x).relu())).relu())


VALUES = {
    "root": lambda y: y / y.shape[1] ** 0.5,
    "product": lambda y: y * y.shape[1],
    "tensor": lambda y: y * torch.tensor(float(y.shape[1])),
    "power": lambda y: y ** (1 + 1 / y.shape[1]),
    "table": lambda y: y + torch.linspace(0, 1, y.shape[1]).view(1, -1, 1, 1),
    "constant table": lambda y: y + (torch.arange(y.shape[1]) / y.shape[1]).view(1, -1, 1, 1),
    "filled": lambda y: y + torch.full((1, y.shape[1], 1, 1), float(y.shape[1])),
    "bound": lambda y: y.clamp(max=y.shape[1] / 16),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_the_width_freezes_that_width_alone(name):
    graph = trace(Scaled(VALUES[name]), IMAGES)
    assert graph.groups["a.weight"].reason is not None
    assert graph.groups["b.weight"].prunable


SIZES = {
    "ones": lambda y: y * torch.ones(1, y.shape[1], 1, 1),
    "of the image": lambda y: y / y.shape[-1],
    "noise": lambda y: y + torch.rand(1),
}


@pytest.mark.parametrize("name", SIZES)
def test_other_values_freeze_nothing(name):
    assert trace(Scaled(SIZES[name]), IMAGES).groups["a.weight"].prunable


def test_other_values_in_the_batch_freeze_nothing():
    assert trace(Scaled(lambda y: y * len(y)), IMAGES).groups["a.weight"].prunable


def test_every_second_part_of_an_axis_is_cut():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)

        def forward(self, x):
            one, two = self.a(x).split([4, 8], 1)
            return self.b(torch.cat([one.relu(), two.sigmoid()], 1))

    graph = trace(Parts(), IMAGES)
    parts = trial_runs._groups_on_one_axis(graph)
    assert [[group.size for group in groups] for groups in parts] == [[4, 8]] or not parts


class ByValues(nn.Module):
    """Asks for values, then counts heads with a number that no module holds."""

    def __init__(self, *, fails_on_zeros):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.heads, self.fails_on_zeros = {"number": 8}, fails_on_zeros

    def forward(self, x):
        y = self.a(x).relu()
        if float(y.sum()) > 0:
            y = y * 2 if float(y[0, -1].abs().sum() + y[0].sum() * 0) else y + 1
        if self.fails_on_zeros:
            torch.stack([image for image in y if float(y.abs().max()) > 1e9] or [y[0], y[0]])
            return self.c(self.b(y))
        mask = torch.ones(1, 1, *y.shape[2:]).expand(-1, self.heads["number"], -1, -1)
        return self.c(self.b(y) * mask)


def test_code_that_fails_after_a_choice_by_values_freezes_what_it_counts():
    graph = trace(ByValues(fails_on_zeros=False), IMAGES)
    assert graph.groups["b.weight"].reason is not None
    assert trace(ByValues(fails_on_zeros=True), IMAGES).groups["b.weight"].prunable
