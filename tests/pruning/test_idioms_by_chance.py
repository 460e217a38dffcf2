"""Random networks of the ways in which one run at one size is not the network."""

from collections import deque
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import strategies
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from flyweight.graph import trace
from flyweight.pruning import plan, prune
from flyweight.pruning.masking import masked

EXACT = 1e-9
some_networks = settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


class Untransposed(nn.Module):
    """Writes tokens back as an image, with or without the transpose that this needs."""

    def __init__(self, width: int, transposed: bool) -> None:
        super().__init__()
        self.mix, self.transposed = nn.Linear(width, width), transposed

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(x.flatten(2).transpose(1, 2))
        tokens = tokens.transpose(1, 2) if self.transposed else tokens
        return x + tokens.reshape(len(x), -1, *x.shape[2:])


class OfTheWidth(nn.Module):
    """Scales by a number that the code computes from its width, from the image or from neither."""

    def __init__(self, width: int, of: str) -> None:
        super().__init__()
        self.body, self.of = nn.Conv2d(width, width, 3, padding=1), of

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.relu(
            y / {"width": y.shape[1], "image": y.shape[-1], "none": 3}[self.of] ** 0.5
        )


class Tied(nn.Module):
    """An autoencoder over channels whose second half is the transpose of the first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.code = nn.Linear(width, width + 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.code(x.permute(0, 2, 3, 1)))
        return functional.linear(hidden, self.code.weight.t()).permute(0, 3, 1, 2)


class Normed(nn.Module):
    """A layer whose weight is direction and length."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.body = weight_norm(nn.Conv2d(width, width, 3, padding=1), dim=dim)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x))


class Resized(nn.Module):
    """A table of positions that is resized at other image sizes alone, by a number of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim, self.mix = width, nn.Conv2d(width, width, 1)
        self.table = nn.Parameter(torch.rand(1, strategies.SIDE**2, width))

    def forward(self, x: Tensor) -> Tensor:
        table, side = self.table, strategies.SIDE
        if tuple(x.shape[2:]) != (side, side):
            table = table.reshape(1, side, side, self.dim).permute(0, 3, 1, 2)
            table = functional.interpolate(table, size=x.shape[2:], mode="bilinear")
            table = table.flatten(2).transpose(1, 2)
        return torch.tanh(self.mix(x) + table.transpose(1, 2).unflatten(2, x.shape[2:]))


@dataclass(slots=True)
class Slots:
    first: Tensor
    rest: Tensor


CONTAINERS = {
    "tuple": lambda y, z: (y, z),
    "mapping": lambda y, z: {"y": y, 1: z},
    "deque": lambda y, z: deque([y, z]),
    "slots": Slots,
}
CONTENTS = {
    "tuple": list,
    "mapping": lambda found: [found["y"], found[1]],
    "deque": list,
    "slots": lambda found: [found.first, found.rest],
}


class Network(nn.Module):
    """Blocks of one width, a head, and a helper that runs always or in training alone."""

    def __init__(self, blocks: list[nn.Module], width: int, container: str, helper: str) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, width, 1), nn.ModuleList(blocks)
        self.neck = nn.Conv2d(width, 7, 1)
        self.head, self.helper = nn.Linear(7, 4), nn.Conv2d(width, 5, 1)
        self.container, self.runs = container, helper

    def forward(self, x: Tensor) -> object:
        features = first = torch.relu(self.stem(x))
        for block in self.blocks:
            features = block(features)
        y = self.head(torch.relu(self.neck(features)).mean((2, 3)))
        helped = self.helper(first) if self.training or self.runs == "always" else None
        if self.runs == "returned in training" and not self.training:
            helped = None
        return CONTAINERS[self.container](y, y.exp() if helped is None else helped)


BLOCKS = st.sampled_from(
    [
        lambda width: Untransposed(width, transposed=True),
        lambda width: Untransposed(width, transposed=False),
        lambda width: OfTheWidth(width, "width"),
        lambda width: OfTheWidth(width, "image"),
        lambda width: OfTheWidth(width, "none"),
        Tied,
        lambda width: Normed(width, 0),
        lambda width: Normed(width, 1),
        Resized,
    ]
)


@st.composite
def networks(draw):
    width = draw(st.sampled_from([6, 8, 12, 16]))
    blocks = [make(width) for make in draw(st.lists(BLOCKS, min_size=1, max_size=3))]
    container = draw(st.sampled_from(sorted(CONTAINERS)))
    helper = draw(st.sampled_from(["always", "in training", "returned in training"]))
    return strategies.randomised(Network(blocks, width, container, helper))


def outputs(model, images):
    return CONTENTS[model.container](model(images))


@torch.no_grad()
def compare(small, dense, images):
    for found, expected in zip(outputs(small, images), outputs(dense, images), strict=True):
        assert found.shape == expected.shape
        scale = expected.abs().max().clamp_min(1e-12)
        assert float((found - expected).abs().max() / scale) <= EXACT


def check(model, ratio, seed):
    """Cut by a random plan, and compare in both modes and at other sizes."""
    torch.manual_seed(seed)
    images = torch.randn(2, 3, strategies.SIDE, strategies.SIDE, dtype=torch.float64)
    larger = torch.randn(3, 3, strategies.SIDE + 3, strategies.SIDE + 6, dtype=torch.float64)
    graph = trace(model, (images,))
    made = plan(graph, ratio, "random")
    small, dense = prune(model, made, verify=False), masked(model, made)
    for mode in (False, True):
        for inputs in (images, larger):
            compare(small.train(mode), dense.train(mode), inputs)
    sum(found.sum() for found in outputs(small.train(), images)).backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    return made


@some_networks
@given(networks(), st.sampled_from([0.3, 0.5]), st.integers(0, 1000))
def test_a_cut_is_exact_in_both_modes_and_at_other_sizes(model, ratio, seed):
    check(model, ratio, seed)


@pytest.mark.parametrize("helper", ["always", "in training", "returned in training"])
@pytest.mark.parametrize("container", sorted(CONTAINERS))
def test_something_is_cut_in_each_container_and_beside_each_helper(container, helper):
    model = strategies.randomised(Network([OfTheWidth(8, "none")], 8, container, helper))
    made = check(model, 0.5, 0)
    assert "stem.weight" in made.groups
