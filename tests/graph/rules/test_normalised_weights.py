"""Weights that are divided by a norm of their own."""

import pytest
import torch
from tests import strategies
from tests.graph.rules.conftest import cut
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import flyweight as fw
from flyweight.graph import trace
from flyweight.graph.rescaling import Rescaled
from flyweight.pruning import PruningPlan, plan, prune

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def convolutions(normalise, dim):
    return nn.Sequential(
        normalise(nn.Conv2d(3, 16, 3, padding=1), dim=dim),
        nn.ReLU(),
        normalise(nn.Conv2d(16, 16, 3, padding=1), dim=dim),
        nn.ReLU(),
        normalise(nn.Conv2d(16, 16, 3, padding=1, groups=2), dim=dim),
        nn.ReLU(),
        normalise(nn.ConvTranspose2d(16, 8, 2, stride=2), dim=dim),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )


@pytest.mark.parametrize("normalise", [weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_normalised_convolutions_and_linear_layers(normalise, dim):
    cut(convolutions(normalise, dim), least=0.7)
    layers = [normalise(nn.Linear(6, 16), dim=dim), normalise(nn.Linear(16, 16), dim=dim)]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), nn.Linear(16, 4))
    cut(model, (torch.randn(5, 6).double(),))


def test_a_layer_that_runs_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
            self.body = parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))

        def forward(self, x):
            return self.last(self.body(self.body(self.first(x)).relu()).relu())

    graph, _, _ = cut(Twice())
    assert len(graph.rescaled) == 1


class ByHand(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight
        self.second = nn.Conv2d(3, 16, 3, padding=1)
        self.v = nn.Parameter(torch.randn(16, 16, 3, 3))
        self.g, self.flat = nn.Parameter(torch.rand(16, 1, 1, 1)), nn.Parameter(torch.rand(16))
        self.whole, self.last = nn.Parameter(torch.rand(())), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = functional.conv2d(self.second(x).relu(), self.weight(self), padding=1)
        return self.last(x.relu())


def norm(m):
    return torch.linalg.vector_norm(m.v, dim=(1, 2, 3), keepdim=True)


def flat(m):
    return m.v.flatten(1)


SCALED = {
    "scale times weight by norm": lambda m: m.g * m.v / norm(m),
    "scale by norm": lambda m: m.v * (m.g / norm(m)),
    "weight by norm": lambda m: m.g * (m.v / norm(m)),
    "flat": lambda m: m.v * (m.flat / flat(m).norm(dim=1))[:, None, None, None],
    "unit vectors": lambda m: m.g * functional.normalize(m.v, dim=(1, 2, 3)),
    "flat unit vectors": lambda m: (
        functional.normalize(flat(m), dim=1).view_as(m.v) * m.flat.view(-1, 1, 1, 1)
    ),
    "root": lambda m: m.g * m.v / (m.v**2).sum((1, 2, 3), keepdim=True).sqrt(),
    "one by root": lambda m: m.g * m.v * m.v.square().sum((1, 2, 3), keepdim=True).rsqrt(),
    "power": lambda m: m.g * m.v * (m.v * m.v).sum((1, 2, 3), keepdim=True) ** -0.5,
    "reciprocal": lambda m: m.g * m.v * norm(m).reciprocal(),
    "absolute values": lambda m: (
        m.g * m.v / torch.linalg.vector_norm(m.v, 1, dim=(1, 2, 3), keepdim=True)
    ),
    "one norm": lambda m: m.whole * m.v / m.v.norm(),
    "expanded": lambda m: (m.g / norm(m)).expand_as(m.v) * m.v,
}


@pytest.mark.parametrize("kind", SCALED)
def test_a_scale_beside_a_norm_is_corrected(kind):
    torch.manual_seed(0)
    model, x = ByHand(SCALED[kind]).double().eval(), torch.randn(2, 3, 8, 8).double()
    graph = trace(model, (x,))
    assert [one.weight for one in graph.rescaled] == ["v"]
    made = plan(graph, 0.5)
    assert "second.weight" in made.groups
    small = prune(model, made)
    gone = torch.tensor(sorted(set(range(16)) - set(made.keep["second.weight"])))
    # What the body makes is zeroed by its own reader; what it reads, where it is made.
    model.second.register_forward_hook(lambda _, __, out: out.index_fill(1, gone, 0))
    with torch.no_grad():
        expected = strategies.zeroed_where_read(model, made.slices(graph), (x,))
        assert float((small(x) - expected).abs().max() / expected.abs().max()) < 1e-12


MIXED = {
    "no scale": (lambda m: functional.normalize(m.v, dim=1), "linalg_vector_norm"),
    "whole weight": (lambda m: m.v / m.v.norm(), "linalg_vector_norm"),
    "something added": (lambda m: m.g * m.v / (norm(m) + 1e-3), "linalg_vector_norm"),
    "scale used twice": (lambda m: m.g * m.v / norm(m) + m.g, "linalg_vector_norm"),
    "norm used twice": (lambda m: m.g * m.v / norm(m) + norm(m), "linalg_vector_norm"),
    "scale of inputs": (
        lambda m: m.flat[None, :, None, None] * m.v / norm(m),
        "linalg_vector_norm",
    ),
    "another power": (lambda m: m.g * m.v / norm(m) ** 2, "linalg_vector_norm"),
    "sum": (lambda m: m.v * m.v.sum(1, keepdim=True), "sum"),
    "sum of absolute values": (lambda m: m.g * m.v / m.v.abs().sum((1, 2, 3), True), "sum"),
    "standardised": (lambda m: m.v - m.v.mean((1, 2, 3), keepdim=True), "mean"),
}


@pytest.mark.parametrize("kind", MIXED)
def test_other_norms_compute_across_channels(kind):
    function, op = MIXED[kind]
    graph = trace(ByHand(function), (torch.rand(1, 3, 8, 8),))
    assert graph.groups["second.weight"].reason is None
    assert graph.groups["second.weight"].mixes == (f"{op} in the model's forward",)


def test_a_norm_of_a_whole_weight_also_mixes_what_it_makes():
    graph = trace(ByHand(MIXED["whole weight"][0]), (torch.rand(1, 3, 8, 8),))
    assert graph.groups["v"].mixes == ("linalg_vector_norm in the model's forward",)
    assert trace(ByHand(MIXED["no scale"][0]), (torch.rand(1, 3, 8, 8),)).groups["v"].prunable


@pytest.mark.parametrize("normalise", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_compute_across_both_sides(normalise):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), normalise(nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 4, 1))
    graph = trace(model.eval(), (torch.rand(1, 3, 8, 8),))
    made, read = (group for group in graph.groups.values() if group.reason is None)
    assert made.mixes[0].startswith("mv ")
    assert read.mixes[0].startswith(("dot ", "vdot "))
    small = prune(model, plan(graph, 0.5, inexact=True))
    assert small(torch.rand(1, 3, 8, 8)).shape == (1, 4, 6, 6)


def normalised_network():
    return convolutions(parametrizations.weight_norm, 0)


def test_a_plan_and_a_checkpoint_keep_the_correction(tmp_path):
    torch.manual_seed(0)
    model = fw.create(normalised_network).eval()
    x = torch.randn(2, 3, 8, 8)
    made = plan(trace(model, (x,)), 0.5)
    names = [f"2.parametrizations.weight.original{place}" for place in (0, 1)]
    assert Rescaled(*names, (1, 2, 3)) in made.rescaled
    again = PruningPlan.from_json(made.to_json())
    assert again == made
    small = prune(model, again)
    fw.save(small, tmp_path / "small.safetensors")
    loaded = fw.load(tmp_path / "small.safetensors", build=normalised_network)
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))


def test_the_model_that_is_pruned_keeps_its_scales():
    model = strategies.randomised(convolutions(weight_norm, 0))
    x = torch.randn(1, 3, 8, 8).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = prune(model, plan(trace(model, (x,)), 0.5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    share = small[2].weight_g / before["2.weight_g"][: len(small[2].weight_g)]
    assert share.shape == (8, 1, 1, 1)
    small(x).sum().backward()
    assert small[2].weight_g.grad is not None


def test_cuts_of_one_layer_are_scanned_as_they_are_made():
    torch.manual_seed(0)
    model = strategies.randomised(convolutions(parametrizations.weight_norm, 0))
    x = torch.randn(2, 3, 8, 8).double()
    graph = trace(model, (x,))

    def energy(outputs, batch):
        return outputs.flatten(1).square().sum(1)

    curves = fw.scan(graph, model, [(x, 0)], energy, ratios=(0.25, 0.5))
    for layer, points in curves.curves.items():
        for point in points:
            with torch.no_grad():
                expected = energy(prune(model, plan(graph, {layer: point.ratio}))(x), None).mean()
            assert point.value == pytest.approx(float(expected), rel=1e-12)
