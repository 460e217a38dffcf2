"""Weights that code computes from stored tensors."""

import pytest
import torch
from tests.graph.rules.conftest import Around
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.identity import Flow
from flyweight.graph.rules.computed_weights import as_weights
from flyweight.graph.step import Ledger, Step
from flyweight.pruning import plan, prune


def low_rank(m):
    return m.weight + (m.out @ m.into).view_as(m.weight)


COMPUTED = {
    "sum": lambda m: m.weight + m.other,
    "low rank": low_rank,
    "low rank, scaled": lambda m: m.weight.add((m.out @ m.into).view_as(m.weight), alpha=0.5),
    "difference of three": lambda m: m.other - (m.weight - m.extra),
    "masked": lambda m: m.weight * (m.other > 0),
    "quantized": lambda m: (m.weight * 16).round() / 16,
    "bounded": lambda m: m.weight.tanh().clamp(-0.5, 0.5),
    "stacked": lambda m: torch.stack([m.weight, m.other]).sum(0),
    "the larger": lambda m: torch.maximum(m.weight, m.other),
    "masked by what is not zero at zero": lambda m: (m.other <= 0) * m.weight,
    "gated": lambda m: m.other.sigmoid() * m.weight / m.extra.exp(),
    "powers": lambda m: m.weight.pow(3) - m.weight**2 + m.weight.sign(),
}
PARTS = {"weight": (16, 16, 1, 1), "other": (16, 16, 1, 1), "extra": (16, 16, 1, 1)}
PARTS |= {"out": (16, 4), "into": (4, 16)}


def computing(function):
    parts = {name: nn.Parameter(torch.randn(shape)) for name, shape in PARTS.items()}
    return Around(lambda m, x: functional.conv2d(x, function(m)), **parts).double().eval()


@pytest.mark.parametrize("kind", COMPUTED)
def test_all_terms_of_a_weight_are_cut(kind):
    torch.manual_seed(0)
    model, x = computing(COMPUTED[kind]), torch.randn(2, 3, 8, 8).double()
    made = plan(trace(model, (x,)), {"second.weight": 0.5})
    small = prune(model, made)
    gone = torch.tensor(sorted(set(range(16)) - set(made.keep["second.weight"])))
    model.second.register_forward_hook(lambda _, __, out: out.index_fill(1, gone, 0))
    with torch.no_grad():
        expected = model(x)
        assert float((small(x) - expected).abs().max() / expected.abs().max()) < 1e-12
    # What the weight makes is cut, too.
    assert {name: g.prunable for name, g in trace(small, (x,)).groups.items()}["third.weight"]


@pytest.mark.parametrize(
    "function",
    [lambda m: m.weight.exp(), lambda m: functional.softplus(m.weight), lambda m: m.weight + 1],
)
def test_a_weight_that_is_not_zero_at_zero_is_not_exact(function):
    """The check after a cut zeroes stored values, which would leave this weight as it is."""
    graph = trace(computing(function), (torch.randn(2, 3, 8, 8).double(),))
    assert graph.groups["second.weight"].reason is None
    assert graph.groups["second.weight"].mixes == ("conv2d in the model's forward",)


@pytest.mark.parametrize(
    ("op", "arguments", "zero"),
    [
        ("add", {"other": 0.0}, True),
        ("add", {"other": 1}, False),
        ("pow", {"exponent": 2}, True),
        ("pow", {"exponent": -1}, False),
        ("clamp", {"min": -1, "max": None}, True),
        ("clamp", {"min": 0.5, "max": 1}, False),
        ("clamp_min", {"min": 1e-6}, False),
        ("clamp_max", {"max": 3}, True),
        ("masked_fill", {"value": 0}, True),
        ("masked_fill", {"value": 1}, False),
        ("where", {}, False),
        ("sigmoid", {}, False),
        ("mul", {"other": 3}, True),
        ("reshape", {}, True),
    ],
)
def test_what_keeps_zeros(op, arguments, zero):
    weight = Flow((3,), parameter=True)
    step = Step(op, "", {"self": weight, **arguments}, ((3,),), Ledger())
    (made,) = as_weights(step, (Flow((3,)),))
    assert (made.parameter, made.zeros) == (True, zero)
    step = Step(op, "", {"self": made, **arguments}, ((3,),), Ledger())
    assert as_weights(step, (Flow((3,)),))[0].zeros is zero
    step = Step(op, "", {"self": Flow((3,)), **arguments}, ((3,),), Ledger())
    assert not as_weights(step, (Flow((3,)),))[0].parameter


def test_what_is_made_of_nothing_is_no_weight():
    step = Step("zeros", "", {"size": [3]}, ((3,),), Ledger())
    assert not as_weights(step, (Flow((3,)),))[0].parameter


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda m: torch.special.entr(m.weight),
            "passes an operation that has no rule: special_entr",
        ),
        (
            lambda m: torch.linalg.matrix_exp(m.weight[:, :, 0, 0])[:, :, None, None],
            "is part of a matrix that is decomposed: linalg_matrix_exp",
        ),
    ],
)
def test_a_layer_whose_weight_is_not_followed_stands_in_a_group_with_the_reason(function, reason):
    groups = trace(computing(function), (torch.rand(1, 3, 8, 8).double(),)).groups
    own = [group for group in groups.values() if any(m.tensor == "weight" for m in group.members)]
    assert own
    assert all(group.reason == f"{reason} in the model's forward" for group in own if group.reason)
    assert any(group.reason for group in own)


def test_an_orthogonal_layer_stands_in_a_group_with_the_reason():
    layers = (
        nn.Linear(3, 6),
        nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)),
        nn.Linear(6, 2),
    )
    model = nn.Sequential(*layers).eval()
    groups = trace(model, (torch.rand(4, 3),)).groups
    name = "1.parametrizations.weight.original"
    own = [group for group in groups.values() if any(m.tensor == name for m in group.members)]
    assert own
    assert all(group.reason is not None for group in own)
