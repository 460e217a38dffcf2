"""Every criterion against a plain computation of the formula."""

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.pruning import CRITERIA, plan


@pytest.fixture(scope="module")
def layers():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 2, 1))


@pytest.fixture(scope="module")
def chain(layers):
    return trace(layers, (torch.rand(1, 3, 8, 8),))


def rows_of(layer):
    return layer.weight.detach().numpy().reshape(len(layer.weight), -1)


def expected(name, rows):
    if name == "l1_norm":
        return np.abs(rows).sum(1)
    if name == "l2_norm":
        return np.sqrt((rows**2).sum(1))
    return np.array([sum(np.sqrt(((one - other) ** 2).sum()) for other in rows) for one in rows])


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "geometry_median"])
def test_choices_are_those_of_a_plain_argsort(chain, layers, name):
    scores = expected(name, rows_of(layers[0]))
    found = CRITERIA[name](chain.groups["0.weight"], chain.tensors)
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    removed = set(np.argsort(scores, kind="stable")[:20].tolist())
    assert set(range(40)) - set(plan(chain, 0.5, name).keep["0.weight"]) == removed


def test_equal_filters_have_no_distance():
    # The product form of a distance in single precision would give sqrt(rounding error).
    model = nn.Sequential(nn.Conv2d(64, 30, 3), nn.Conv2d(30, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.rand(64, 3, 3).expand(30, -1, -1, -1) * 100)
    graph = trace(model, (torch.rand(1, 64, 4, 4),))
    scores = CRITERIA["geometry_median"](graph.groups["0.weight"], graph.tensors)
    assert np.abs(scores).max() < 1e-2


def test_bn_scale_is_the_size_of_the_scale(chain, layers):
    with torch.no_grad():
        layers[1].weight.copy_(torch.linspace(-1, 1, 40))
    found = CRITERIA["bn_scale"](chain.groups["0.weight"], chain.tensors)
    np.testing.assert_allclose(found, np.abs(np.linspace(-1, 1, 40)), atol=1e-6)


def test_bn_scale_without_a_normalisation_is_refused(graph):
    with pytest.raises(PlanError, match=r"Received group 'body.weight' without one. Choose 'l1_no"):
        plan(graph, {"body.weight": 0.5}, "bn_scale")


def test_random_is_fixed_per_group(chain):
    group = chain.groups["0.weight"]
    first, again = (CRITERIA["random"](group, chain.tensors) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 40


def test_first_keeps_the_first(chain):
    assert plan(chain, 0.75, "first").keep["0.weight"] == tuple(range(10))


def test_coupled_layers_are_divided_by_their_mean_and_summed(graph, model):
    found = CRITERIA["l1_norm"](graph.groups["stem.weight"], graph.tensors)
    parts = [np.abs(rows_of(layer)).sum(1) for layer in (model.stem, model.back)]
    np.testing.assert_allclose(found, sum(part / part.mean() for part in parts), rtol=1e-5)


def test_the_filters_of_one_channel_are_summed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    norms = np.abs(rows_of(model[1])).sum(1)
    found = CRITERIA["l1_norm"](graph.groups["1.weight"], graph.tensors)
    np.testing.assert_allclose(found, norms[:4] + norms[4:], rtol=1e-6)


def test_a_transposed_convolution_makes_its_second_axis():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Conv2d(5, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    norms = model[0].weight.detach().abs().sum((0, 2, 3)).numpy()
    found = CRITERIA["l1_norm"](graph.groups["0.weight"], graph.tensors)
    np.testing.assert_allclose(found, norms, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"bn_scale"}))
def test_half_precision_weights_are_judged(name):
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)).bfloat16()
    graph = trace(model, (torch.rand(1, 3, dtype=torch.bfloat16),))
    assert len(plan(graph, 0.5, name).keep["0.weight"]) == 3
