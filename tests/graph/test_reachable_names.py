import functools

import torch
from torch import nn

from flyweight.graph.reachable_names import reachable_names


def scaled(module, x):
    return x * module.read_in_a_function


def noted(method):
    @functools.wraps(method)
    def wrapper(self, x):
        return method(self, x)

    return wrapper


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.read = self.read_by_name = self.read_in_a_function = self.read_in_a_method = 3
        self.never_read = self.layer.in_features

    @property
    def doubled(self):
        return self.read_in_a_property

    @staticmethod
    def shifted(module, x):
        return x + module.read_in_a_static_method

    @noted
    def method(self, x):
        return [scaled(self, row) + self.read_in_a_method for row in x]

    def fold(self):
        return self.never_read + self.only_read_by_fold

    def forward(self, x):
        x = self.layer(x) * self.read + getattr(self, "read_by_name") + self.doubled  # noqa: B009
        return torch.stack(self.method(self.shifted(self, x)))


def test_names_that_a_forward_may_read():
    names = reachable_names(nn.Sequential(Block(), nn.ReLU()))
    assert {name for name in names if name.startswith("read")} == {
        "read",
        "read_by_name",
        "read_in_a_function",
        "read_in_a_method",
        "read_in_a_property",
        "read_in_a_static_method",
    }
    assert not {"never_read", "only_read_by_fold", "in_features"} & names


def test_a_forward_that_was_replaced():
    model = nn.Sequential(nn.Linear(3, 3))
    model.forward = lambda x: model[0](x) * model.other_width
    assert "other_width" in reachable_names(model)
