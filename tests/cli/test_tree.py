import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.cli.tree import STATES, group_tree, reason_of, state_of


class Net(nn.Module):
    """A group of each state; the residual one has many members."""

    def __init__(self, stem="stem"):
        super().__init__()
        self.add_module(stem, nn.Conv2d(3, 8, 1))
        self.first = stem
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1))
            for _ in range(5)
        )
        self.mixed = nn.Conv2d(8, 4, 1)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 1000)

    def forward(self, images):
        features = self.get_submodule(self.first)(images)
        for block in self.blocks:
            features = features + block(features)
        return self.head(self.norm(self.mixed(features).mean((2, 3))))


def traced(model):
    return fw.trace(model, (torch.rand(1, 3, 8, 8),))


@pytest.fixture(scope="module")
def graph():
    return traced(Net())


def test_the_three_states_and_their_reasons(graph):
    states = {name: state_of(group) for name, group in graph.groups.items()}
    assert states["stem.weight"] == states["blocks.4.0.weight"] == "prunable"
    assert (states["mixed.weight"], states["head.weight"]) == ("inexact", "frozen")
    assert reason_of(graph.groups["stem.weight"]) is None
    assert reason_of(graph.groups["mixed.weight"]) == (
        "its channels are mixed by layer_norm at 'norm'"
    )
    lines = group_tree(graph, width=80).plain.splitlines()
    place = lines.index("       4  inexact   mixed.weight")
    assert lines[place + 1] == " " * 10 + (
        "│ because its channels are mixed by layer_norm at 'norm'"
    )
    place = lines.index("   1,000  frozen    head.weight")
    assert lines[place + 1 : place + 4] == [
        "          │ because it is an output of the model",
        "          ├ makes   head.weight  axis 0  1000x4",
        "          └ follows head.bias    axis 0  1000",
    ]


def test_long_lists_are_folded_makers_first(graph):
    lines = group_tree(graph, width=80).plain.splitlines()
    place = lines.index("       8  prunable  stem.weight")
    assert [line.split()[:3] for line in lines[place + 1 : place + 8]] == [
        *(
            ["├", "makes", name]
            for name in ("stem.weight", "blocks.0.2.weight", "blocks.1.2.weight")
        ),
        *(["├", "reads", f"blocks.{index}.0.weight"] for index in range(3)),
        ["└", "…", "and"],
    ]
    members = len(graph.groups["stem.weight"].members)
    assert lines[place + 7].endswith(f"… and {members - 6} more")
    whole = group_tree(graph, width=80, complete=True).plain
    assert "…" not in whole
    assert whole.count(" axis ") == sum(len(group.members) for group in graph.groups.values())


def test_the_last_lines_are_totals(graph):
    *_, states, sums = group_tree(graph, width=80).plain.splitlines()
    assert states == "8 groups: 6 prunable, 1 frozen, 1 inexact"
    assert sums.startswith("1,092 channels, 6,")
    assert sums.endswith(" parameters, 0.0001 GMACs")


def test_names_are_whole_in_a_narrow_terminal():
    stem = "a_long_name_" * 4
    text = group_tree(traced(Net(stem)), width=60).plain
    assert f"makes   {stem}.weight\n          │         axis 0  8x3x1x1\n" in text
    assert all(len(line) <= 60 or stem in line for line in text.splitlines())


def test_states_have_colours_of_their_own(graph):
    styles = {span.style for span in group_tree(graph, width=80).spans}
    assert set(STATES.values()) <= styles
    assert len(set(STATES.values())) == 3
