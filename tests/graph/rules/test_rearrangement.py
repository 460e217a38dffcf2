"""Each operation between two convolutions: what may leave, and that the cut network is exact."""

import pytest
import torch
from tests.graph.rules.conftest import Around, cut
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.identity import Field, Flow
from flyweight.pruning import plan, prune
from flyweight.pruning.verification import largest_error


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.LazyConv2d(2, 1)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def first_group(function, image):
    model = Between(function)
    model(image)
    model.double()
    graph = trace(model, (image.double(),))
    return model, graph, graph.groups["first.weight"]


def rows(x):
    return x.flatten(2)


ZEROS = torch.zeros(1, 8, 1, 64, dtype=torch.long)
FOLLOWED = {
    "pixel_shuffle": (lambda x: functional.pixel_shuffle(x, 2), 2),
    "pixel_unshuffle": (lambda x: functional.pixel_unshuffle(x, 2), 8),
    "unfold and fold": (
        lambda x: functional.fold(functional.unfold(x, 3, padding=1), (8, 8), 3, padding=1),
        8,
    ),
    "channel_shuffle": (lambda x: torch.nn.functional.channel_shuffle(x, 2), 4),
    "glu": (lambda x: functional.glu(x, 1), 4),
    "grid_sample": (
        lambda x: functional.grid_sample(
            x, torch.zeros(1, 4, 4, 2, dtype=x.dtype), align_corners=False
        ),
        8,
    ),
    "sort": (lambda x: x.sort(3).values, 8),
    "topk": (lambda x: x.topk(3, 2).values, 8),
    "gather": (lambda x: x.gather(2, torch.zeros_like(x, dtype=torch.long)), 8),
    "scatter_add": (
        lambda x: torch.zeros_like(x).scatter_add(2, torch.zeros_like(x, dtype=torch.long), x),
        8,
    ),
    "rot90": (lambda x: torch.rot90(x, 1, (2, 3)), 8),
    "baddbmm": (
        lambda x: torch.baddbmm(rows(x), rows(x), torch.ones(1, 64, 64, dtype=x.dtype)).view_as(x),
        8,
    ),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 8),
    "written rows": (lambda x: _written(x), 8),
    "index_put": (lambda x: _put(x), 8),
}


def _written(x):
    out = torch.zeros_like(x)
    out[:, :, 1:] = x[:, :, 1:]
    return out


def _put(x):
    out = torch.zeros(x.shape, dtype=x.dtype).transpose(0, 2).contiguous()
    out[torch.tensor([1, 0])] = x.transpose(0, 2)[:2]
    return out.transpose(0, 2)


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed_exactly(name):
    function, channels = FOLLOWED[name]
    model, graph, group = first_group(function, torch.rand(1, 3, 8, 8))
    assert (group.size, group.prunable) == (channels, True)
    made = plan(graph, 0.5)
    small = prune(model, made)
    assert largest_error(model, small, made, (torch.rand(1, 3, 8, 8).double(),)) < 1e-12
    assert small.first.out_channels == 4


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.sort(1).values, "is put in an order that values decide: sort"),
        (lambda x: x.gather(1, torch.zeros_like(x, dtype=torch.long)), "is looked up by index"),
        (lambda x: torch.rot90(x, 1, (1, 2)), "lies along an axis that is turned: rot90"),
        (lambda x: functional.pixel_shuffle(x.transpose(1, 2), 2), "lies along rows or columns"),
        (lambda x: functional.channel_shuffle(x, 8), "is the only channel of its group"),
        (lambda x: x[:, torch.tensor([1, 0, 2])], "is looked up by index: index"),
        (lambda x: x.index_select(1, torch.tensor([1, 0, 2])), "is looked up by index: index_sel"),
    ],
)
def test_frozen_with_the_reason(function, words):
    _, _, group = first_group(function, torch.rand(1, 3, 8, 8))
    assert group.reason is not None
    assert group.reason.startswith(words)


def test_steering_tensors_are_frozen():
    class Steered(nn.Module):
        def __init__(self):
            super().__init__()
            self.grid, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            grid = self.grid(x).permute(0, 2, 3, 1)
            return self.last(functional.grid_sample(x, grid, align_corners=False))

    group = trace(Steered(), (torch.rand(1, 3, 8, 8),)).groups["grid.weight"]
    assert group.reason == ("steers where an image is read: grid_sampler_2d in the model's forward")


def counted_down(length=8):
    return torch.arange(length - 1, -1, -1)


ALONG_ROWS = {
    "index_add": lambda m, x: torch.zeros_like(x).index_add(2, counted_down(), x),
    "index_copy": lambda m, x: torch.zeros_like(x).index_copy(2, counted_down(), x),
    "index_fill": lambda m, x: x.index_fill(2, torch.tensor([0, 1]), 0.5),
    "scatter_add": lambda m, x: (
        torch.zeros_like(x.flatten(2))
        .scatter_add(2, counted_down(64).expand(len(x), x.shape[1], 64), x.flatten(2))
        .view_as(x)
    ),
    "take_along_dim": lambda m, x: torch.take_along_dim(
        x.flatten(2), x.flatten(2).argsort(2), 2
    ).view_as(x),
    "windows": lambda m, x: x.unfold(2, 2, 2).mean(-1).repeat_interleave(2, 2),
    "patches": lambda m, x: functional.interpolate(
        m.mixed(x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3)).permute(
            0, 3, 1, 2
        ),
        scale_factor=2,
    ),
    "affine_grid": lambda m, x: functional.grid_sample(
        x,
        functional.affine_grid(m.turn.expand(len(x), 2, 3), list(x.shape), align_corners=False),
        align_corners=False,
    ),
}


@pytest.mark.parametrize("kind", ALONG_ROWS)
def test_positions_of_rows_and_columns_pass_channels(kind):
    parts = {"mixed": nn.Linear(64, 16)} if kind == "patches" else {}
    cut(Around(ALONG_ROWS[kind], turn=torch.eye(2, 3), **parts))


def test_tokens_in_an_order_of_their_own(bench):
    x, by = bench.flow(2, 5, 4, axes=[2]), Flow((2, 5, 4))
    alike = Field((2,), bench.ledger.identities.fresh_alike(4))
    out = bench.run("gather", x.shape, self=x, dim=1, index=Flow(by.shape, (alike,)))
    assert out.field_on(2).ids.tolist() == [0, 1, 2, 3]
    assert bench.frozen == []


@pytest.mark.parametrize(
    ("op", "arguments"),
    [("index_fill", {"dim": 1, "index": Flow((2,)), "value": 0}), ("unfold", {"dimension": 1})],
)
def test_channels_that_are_written_or_windowed_freeze(bench, op, arguments):
    x = bench.flow(1, 4, 3, axes=[1])
    assert bench.run(op, x.shape, self=x, **arguments).fields == ()
    assert len(bench.frozen) == 1


def test_what_is_scaled_by_its_norm_is_mixed(bench):
    x = bench.flow(2, 4, 3, axes=[1, 2])
    assert bench.run("renorm", x.shape, self=x, p=2, dim=1, maxnorm=1).fields == x.fields
    assert bench.mixed == x.fields[1].ids.tolist()
