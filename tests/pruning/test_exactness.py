"""The promise: exact or refused. Random networks x random plans, and torchvision's own."""

import copy

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import strategies

from flyweight.graph import trace
from flyweight.graph.groups import orders_among
from flyweight.pruning import PruningPlan, largest_error, plan, prune

EXACT = 1e-9
random_networks = settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def check_exact(model, made, graph, inputs):
    """Check a plan against both oracles and against a second trace."""
    small = prune(model, made, verify=False)
    with torch.no_grad():
        found = small(*inputs)
    expected = strategies.zeroed_where_read(model, made.slices(graph), inputs)
    assert relative(found, expected) <= EXACT
    assert largest_error(model, small, made, inputs) <= EXACT
    again = trace(small, inputs)
    assert again.cost() == made.cost(graph)
    assert again.cost("paddle") == made.cost(graph, "paddle")
    shapes = {name: tuple(value.shape) for name, value in small.state_dict().items()}
    for name, axes in made.slices(graph).items():
        for axis, kept in axes.items():
            assert shapes[name][axis] == len(kept)
    return found, small


@random_networks
@given(strategies.networks(), st.integers(0, 1000))
def test_random_plans_of_random_networks_are_exact(model, seed):
    torch.manual_seed(seed)
    inputs = strategies.example()
    graph = trace(model, inputs)
    made = strategies.random_plan(graph, seed)
    check_exact(model, made, graph, inputs)
    assert PruningPlan.from_json(made.to_json()) == made


@random_networks
@given(strategies.networks(), st.integers(0, 1000))
def test_a_groups_channels_in_another_order_change_nothing(model, seed):
    torch.manual_seed(seed)
    inputs = strategies.example()
    graph = trace(model, inputs)
    turned = copy.deepcopy(model)
    tensors = {**dict(turned.named_parameters()), **dict(turned.named_buffers())}
    free = [group for group in graph.groups.values() if group.reason is None]
    # A stored order of channels means something: it is not to be put in another order.
    free = [group for group in free if not orders_among([group.members])]
    for group in free:
        order = torch.randperm(group.size)
        for member in group.members:
            places = torch.as_tensor(member.positions(group.size))
            whole = torch.arange(tensors[member.tensor].shape[member.axis])
            whole[places.flatten()] = places[order].flatten()
            tensors[member.tensor].data = tensors[member.tensor].data.index_select(
                member.axis, whole
            )
    assert any(
        not torch.equal(value, tensors[name]) for name, value in model.named_parameters()
    ) == any(group.size > 1 for group in free)
    with torch.no_grad():
        assert relative(turned(*inputs), model(*inputs)) <= EXACT


@pytest.mark.parametrize("kind", strategies.BUILDERS)
def test_every_kind_of_coupling_is_cut_not_frozen(kind):
    model, inputs = strategies.build([kind, "chain"]), strategies.example()
    graph = trace(model, inputs)
    stuck = {name: group for name, group in graph.groups.items() if group.reason is not None}
    assert list(stuck) == ["head.weight"]
    made = strategies.random_plan(graph, seed=3, every=True)
    found, _ = check_exact(model, made, graph, inputs)
    with torch.no_grad():
        assert relative(found, model(*inputs)) > 1e-3, "the plan must remove something that counts"


def test_keeping_everything_is_the_identity():
    model, inputs = strategies.build(list(strategies.BUILDERS)), strategies.example()
    graph = trace(model, inputs)
    whole = PruningPlan(graph.fingerprint, {}, "none", graph.inputs)
    assert whole.cost(graph) == graph.cost()
    with torch.no_grad():
        assert torch.equal(prune(model, whole)(*inputs), model(*inputs))


def test_mixed_groups_run_when_asked_for():
    model, inputs = strategies.build(["normalised", "attention"]), strategies.example()
    graph = trace(model, inputs)
    made = strategies.random_plan(graph, seed=1, every=True, inexact=True)
    assert not made.exact
    small = prune(model, made)
    assert small(*inputs).shape == model(*inputs).shape
    assert trace(small, inputs).cost() == made.cost(graph)


# Name, side, share of parameters that may stay when half of every group goes.
NETWORKS = [
    ("resnet18", 33, 0.27),
    ("mobilenet_v2", 33, 0.36),
    ("shufflenet_v2_x0_5", 33, 0.46),
    ("densenet121", 33, 0.30),
    ("regnet_x_400mf", 33, 0.28),
    ("googlenet", 33, 0.65),
    ("squeezenet1_1", 33, 0.37),
    ("mobilenet_v3_small", 33, 0.37),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side", "most"), NETWORKS)
def test_torchvision_networks_are_exact(name, side, most):
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = strategies.randomised(torchvision.models.get_model(name, weights=None, **options))
    inputs = (torch.randn(1, 3, side, side, dtype=torch.float64),)
    graph = trace(model, inputs)
    assert {g.reason for g in graph.groups.values() if g.reason} == {"is an output of the model"}
    made = plan(graph, 0.5)
    free = {name for name, group in graph.prunable().items() if group.size > 1}
    assert set(made.groups) == free
    assert made.cost(graph).params / graph.cost().params <= most
    check_exact(model, made, graph, inputs)
