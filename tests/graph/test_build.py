"""How joined identities become groups: names, order, roles, sizes."""

import numpy as np
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.graph.build import Slot, build_graph
from flyweight.graph.example_inputs import Example
from flyweight.graph.step import Ledger
from flyweight.pruning import largest_error, plan, prune


class Cut(nn.Module):
    """One layer's outputs are read by two layers, four and two channels each."""

    def __init__(self):
        super().__init__()
        self.both = nn.Conv2d(3, 6, 1)
        self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = self.both(x)
        return self.left(x[:, :4]), self.right(x[:, 4:])


class Late(nn.Module):
    """Declared in another order than it runs."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(5, 2, 1)
        self.second = nn.Conv2d(4, 5, 1)
        self.first = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.last(self.second(self.first(x)))


def graph_of(model, channels=3):
    return trace(model, (torch.rand(1, channels, 6, 6),))


def test_groups_come_in_order_of_execution():
    assert list(graph_of(Late()).groups) == ["first.weight", "second.weight", "last.weight"]


def test_a_layer_in_pieces_gives_groups_with_the_first_channel_in_their_names():
    groups = graph_of(Cut()).groups
    assert list(groups)[:2] == ["both.weight", "both.weight[4:]"]
    assert [groups[name].size for name in ("both.weight", "both.weight[4:]")] == [4, 2]
    (reader,) = [m for m in groups["both.weight[4:]"].members if m.role == "consumes"]
    assert (reader.tensor, reader.positions(2).ravel().tolist()) == ("right.weight", [0, 1])


def test_a_group_is_named_after_the_first_layer_that_makes_its_channels():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            early = self.early(x)
            return self.last(self.late(x) + early)

    group = next(iter(graph_of(Shortcut()).groups.values()))
    assert group.name == "early.weight"
    assert [member.tensor for member in group.producers()] == ["early.weight", "late.weight"]


def test_roles():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)
    )
    group = graph_of(model).groups["0.weight"]
    roles = {(member.tensor, member.axis): member.role for member in group.members}
    assert roles == {
        ("0.weight", 0): "produces",
        ("0.bias", 0): "follows",
        ("1.weight", 0): "follows",
        ("1.bias", 0): "follows",
        ("1.running_mean", 0): "follows",
        ("1.running_var", 0): "follows",
        ("2.weight", 0): "follows",
        ("2.bias", 0): "follows",
        ("3.weight", 1): "consumes",
    }


def test_a_flattened_picture_gives_every_channel_its_positions():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 2))
    group = graph_of(model).groups["0.weight"]
    (reader,) = [member for member in group.members if member.role == "consumes"]
    assert reader.repeat == 36
    assert reader.positions(4)[2].tolist() == list(range(72, 108))


def test_grouped_convolution_keeps_the_same_places_in_every_group():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    groups = graph_of(model).groups
    assert groups["0.weight"].size == 3
    assert groups["0.weight"].members[0].positions(3).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert groups["1.weight"].size == 4
    assert groups["1.weight"].members[0].positions(4)[1].tolist() == [1, 5]


def test_a_buffer_nobody_cuts_is_priced_whole():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)
            self.register_buffer("unused", torch.zeros(7, 3))

        def forward(self, x):
            return self.layer(x)

    cost = graph_of(Table()).cost()
    assert cost.params == 4 * 3 + 4
    assert cost.values == cost.params + 21


def test_a_padded_weight_is_followed_without_a_group_of_its_own():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 3, 1, 1))
            self.bias, self.last = nn.Parameter(torch.rand(6)), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            weight = nn.functional.pad(self.weight, (0, 0, 0, 0, 0, 0, 1, 1))
            return self.last(nn.functional.conv2d(x, weight, self.bias))

    groups = graph_of(Padded()).groups
    free = {name: group.size for name, group in groups.items() if group.prunable}
    assert free == {"weight": 4}
    assert groups["bias"].reason.startswith("is a part of fixed size: ")


class Bank(nn.Module):
    """Three axes of one parameter are free: dynamic convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.choose = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.kernels, self.head = nn.Parameter(torch.randn(5, 6, 8, 3, 3)), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        shares = self.choose(x.mean((2, 3))).sigmoid()
        kernels = torch.einsum("bk,koihw->boihw", shares, self.kernels)
        n, c, h, w = x.shape
        x = nn.functional.conv2d(x.reshape(1, n * c, h, w), kernels.flatten(0, 1), None, 1, 1, 1, n)
        return self.head(x.reshape(n, -1, h, w))


def test_free_axes_of_one_parameter_have_names_of_their_own():
    slots = [
        Slot("w", axis, np.arange(first, first + 4)) for axis, first in ((0, 0), (1, 4), (2, 8))
    ]
    ledger = Ledger(produced=[slot.ids for slot in slots])
    ledger.identities.fresh(12)
    tensors = {"w": torch.zeros(4, 4, 4)}
    graph, _ = build_graph(ledger, slots, tensors, frozenset(tensors), Example(()))
    assert list(graph.groups) == ["w", "w[0:]", "w[axis2][0:]"]
    assert [group.members[0].axis for group in graph.groups.values()] == [0, 1, 2]
    assert all(name == group.name for name, group in graph.groups.items())


def test_a_bank_of_kernels_is_cut_group_by_group():
    model, x = Bank().double().eval(), torch.rand(1, 3, 6, 6).double()
    graph = trace(model, (x,))
    assert {"stem.weight", "choose.weight"} <= set(graph.groups)
    assert len({group.name for group in graph.groups.values()}) == len(graph.groups)
    for name in graph.prunable():
        made = plan(graph, {name: 0.5})
        assert name in made.groups
        assert largest_error(model, prune(model, made), made, (x,)) < 1e-12
