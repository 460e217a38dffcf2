"""Blocks that keep their width for code other than `forward`."""

import pytest
import timm
import torch
from tests import strategies
from timm.utils.model import reparameterize_model
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.width_numbers import attribute_of
from flyweight.pruning import PruningPlan, plan, prune

IMAGE = (torch.rand(1, 3, 8, 8),)


class Rep(nn.Module):
    """A convolution and an identity, each normalised, that `fold` joins to one convolution."""

    def __init__(self, width):
        super().__init__()
        self.width, self.folded = width, None
        self.wide, self.same = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        if self.folded is not None:
            return functional.relu(self.folded(x))
        return functional.relu(self.wide(x) + self.same(x))

    def fold(self):
        scale = self.same.weight / (self.same.running_var + self.same.eps).sqrt()
        kernel = torch.zeros(self.width, self.width, 3, 3, dtype=scale.dtype)
        kernel[range(self.width), range(self.width), 1, 1] = scale
        folded = nn.Conv2d(self.width, self.width, 3, padding=1).to(scale.dtype)
        folded.weight.data = self.wide.weight.data + kernel
        folded.bias.data = self.wide.bias + self.same.bias - self.same.running_mean * scale
        self.folded = folded


class Pointwise(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.kernel_size = in_channels, 3
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.pointwise(self.depthwise(x).relu())


def pruned(model, inputs=IMAGE):
    model = strategies.randomised(model)
    inputs = tuple(value.double() for value in inputs)
    graph = trace(model, inputs)
    made = plan(graph, 0.5)
    return graph, made, prune(model, made), inputs


def test_a_block_folds_after_a_cut():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Rep(8), Rep(8), nn.Conv2d(8, 4, 1))
    graph, made, small, inputs = pruned(model)
    assert {path: made.numbers[path] for path in ("1.width", "2.width")} == {
        "1.width": 4,
        "2.width": 4,
    }
    assert PruningPlan.from_json(made.to_json()).numbers == made.numbers
    with torch.no_grad():
        expected = small(*inputs)
        small[1].fold()
        small[2].fold()
        torch.testing.assert_close(small(*inputs), expected, rtol=1e-12, atol=1e-12)
    assert graph.notes == ()


def test_inputs_outputs_and_groups_follow_the_widths_that_they_name():
    """All of them are 8 in the dense network, and cut to different widths."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Pointwise(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model = strategies.randomised(model)
    inputs = (IMAGE[0].double(),)
    made = plan(trace(model, inputs), {"0.weight": 0.25, "1.pointwise.weight": 0.5})
    small = prune(model, made)
    block = small[1]
    assert (block.in_channels, block.out_channels, block.groups) == (6, 4, 6)
    assert block.kernel_size == 3


class TwoWidths(nn.Module):
    """`width` equals the widths of two layers that are cut apart."""

    def __init__(self):
        super().__init__()
        self.width = 8
        self.first, self.second, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x):
        return self.last(self.second(self.first(x).relu()).relu())


def test_a_number_that_equals_several_widths_is_named_in_a_note():
    graph, made, small, _ = pruned(nn.Sequential(TwoWidths()))
    assert "0.width" not in made.numbers
    assert small[0].width == 8
    (note,) = graph.notes
    assert note.startswith("These numbers equal several widths and keep their value in a cut: 0.w")


class Valued(nn.Module):
    """The forward computes with its width, which must stay what it was."""

    def __init__(self, width=8):
        super().__init__()
        self.dim, self.out_dim = width, 12
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Conv2d(width, 12, 1)

    def forward(self, x):
        return self.last(self.first(x) * self.dim**-0.5)


def test_a_number_that_a_run_computes_with_keeps_its_value():
    model = nn.Sequential(Valued(), nn.ReLU(), nn.Conv2d(12, 4, 1))
    _, made, small, inputs = pruned(model)
    assert (small[0].dim, small[0].out_dim) == (8, 6)
    assert made.numbers == {"0.out_dim": 6}
    with torch.no_grad():
        expected = strategies.zeroed_where_read(model, made.slices(trace(model, inputs)), inputs)
        torch.testing.assert_close(small(*inputs), expected)


@pytest.mark.parametrize("name", ["kernel_size", "num_heads", "depth", "num_classes", "index"])
def test_numbers_of_other_names_are_left_alone(name):
    block = Rep(8)
    setattr(block, name, 8)
    _, _, small, _ = pruned(nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.Conv2d(8, 4, 1)))
    assert (small[1].width, getattr(small[1], name)) == (4, 8)


def test_the_attribute_at_the_end_of_a_path():
    assert attribute_of("blocks.0.width") == "width"
    assert attribute_of("dims[2]") == "dims"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8", "repghostnet_050"])
def test_networks_of_timm_are_re_parametrised_after_a_cut(name):
    torch.manual_seed(0)
    model = timm.create_model(name)
    _, made, small, inputs = pruned(model, (torch.randn(1, 3, 64, 64),))
    assert made.numbers
    with torch.no_grad():
        expected = small(*inputs)
        found = reparameterize_model(small)(*inputs)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-9


class Shifted(nn.Module):
    """Numbers that its forward reads, and that equal the two channels of its layer by chance."""

    def __init__(self):
        super().__init__()
        self.shift_size, self.num_turns = 2, 2
        self.first, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        y = torch.roll(self.first(x), self.shift_size, 2)
        for _ in range(self.num_turns):
            y = y.tanh()
        return self.last(y)


def test_numbers_that_a_run_reads_are_no_widths_although_no_shape_shows_it():
    model = Shifted().double()
    graph = trace(model, (torch.rand(2, 3, 8, 8, dtype=torch.float64),))
    assert dict(graph.numbers) == {}
    small = prune(model, plan(graph, 0.5))
    assert (small.first.out_channels, small.shift_size, small.num_turns) == (1, 2, 2)
