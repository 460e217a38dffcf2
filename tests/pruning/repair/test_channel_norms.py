"""Which normalisations a repair finds behind an inexact cut, and what it says of the others."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import flyweight as fw
from flyweight.pruning.repair.channel_norms import normalised, without_scale
from flyweight.pruning.repair.layers import surroundings
from flyweight.pruning.repair.repair import RepairSettings, repair


class Functional(nn.Module):
    """A normalisation whose scale the model holds itself."""

    def __init__(self):
        super().__init__()
        self.make = nn.Linear(6, 10)
        self.scale = nn.Parameter(torch.rand(10) + 0.5)
        self.shift = nn.Parameter(torch.rand(10))
        self.read = nn.Linear(10, 3)

    def forward(self, x):
        x = self.make(x)
        return self.read(functional.layer_norm(x, (x.shape[-1],), self.scale, self.shift))


class Shared(nn.Module):
    """One normalisation, used twice."""

    def __init__(self):
        super().__init__()
        self.make, self.norm = nn.Linear(6, 10), nn.LayerNorm(10)
        self.read = nn.Linear(10, 3)

    def forward(self, x):
        x = self.make(x)
        return self.read(self.norm(x) + self.norm(x * 2))


class Bare(nn.Module):
    """Two normalisations without a scale, of which one loses channels."""

    def __init__(self):
        super().__init__()
        self.make, self.read = nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.make(x)
        x = self.read(functional.layer_norm(x, x.shape[-1:]))
        return functional.layer_norm(x, x.shape[-1:])


def inexact(model, x, ratio=0.4):
    plan = fw.plan(fw.trace(model, (x,)), ratio, inexact=True)
    assert not plan.exact
    return plan, fw.prune(model, plan)


def found(model, x):
    plan, small = inexact(model, x)
    return surroundings(model, small, plan, (x,))


@pytest.mark.parametrize(
    ("norm", "op"),
    [
        (nn.LayerNorm(10), "layer_norm"),
        (nn.LayerNorm(10, bias=False), "layer_norm"),
        (nn.RMSNorm(10), "rms_norm"),
        (nn.GroupNorm(2, 10), "group_norm"),
    ],
)
def test_modules(norm, op):
    model = nn.Sequential(nn.Linear(6, 10), norm, nn.Linear(10, 3))
    around = found(model, torch.rand(4, 6))
    (one,) = around.channel_norms.values()
    assert (one.name, one.op) == ("1.weight", op)
    assert (one.bias is not None) == (getattr(norm, "bias", None) is not None)
    assert sorted((*one.made, *one.removed)) == list(range(10))
    assert len(one.weight) == len(one.made) == 6
    # In order of execution, before the layer that reads it.
    assert around.order == ("1.weight", "2.weight")
    assert around.skipped_norms == ()


def test_functional_ones_are_found_by_their_scale():
    (one,) = found(Functional(), torch.rand(4, 6)).channel_norms.values()
    assert (one.name, one.bias is not None) == ("scale", True)


def test_a_norm_that_is_used_twice_is_named():
    around = found(Shared(), torch.rand(4, 6))
    assert around.channel_norms == {}
    assert around.skipped_norms == ("'norm.weight' is read more than once in a run",)


def test_exact_cuts_have_none():
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.LayerNorm(8))
    x = torch.rand(4, 6)
    plan = fw.plan(fw.trace(model, (x,)), 0.4)
    small = fw.prune(model, plan)
    assert surroundings(model, small, plan, (x,)).channel_norms == {}
    _, report = repair(model, small, plan, [x, x])
    assert [step.name for step in report.steps] == ["cut", "constants", "least squares"]


def test_norms_without_a_scale_are_named_and_left():
    torch.manual_seed(0)
    model = Bare()
    x = torch.rand(4, 6)
    plan, small = inexact(model, x)
    assert list(without_scale(model, small, (x,))) == [
        "layer_norm in the model's forward has no scale that could be corrected"
    ]
    _, report = repair(model, small, plan, [x, x], RepairSettings(reconstruct=False))
    (step,) = [step for step in report.steps if step.name == "channel norms"]
    assert step.done == "no normalisations over channels"
    assert step.skipped == (
        "layer_norm in the model's forward has no scale that could be corrected",
    )


def test_normalised_values_are_those_without_scale_and_offset():
    torch.manual_seed(0)
    x = torch.randn(3, 8, 5, dtype=torch.float64)
    mean, spread = x.mean(2, keepdim=True), x.var(2, correction=0, keepdim=True)
    wanted = (x - mean) / (spread + 0.1).sqrt()
    given = {"input": x, "normalized_shape": [5], "eps": 0.1}
    torch.testing.assert_close(normalised("layer_norm", given), wanted, rtol=0, atol=1e-14)
    wanted = x / (x.square().mean(2, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(normalised("rms_norm", given), wanted, rtol=0, atol=1e-14)
    parts = x.reshape(3, 2, 20)
    spread = parts.var(2, correction=0, keepdim=True)
    wanted = ((parts - parts.mean(2, keepdim=True)) / (spread + 0.1).sqrt()).reshape(x.shape)
    given = {"input": x, "num_groups": 2, "eps": 0.1}
    torch.testing.assert_close(normalised("group_norm", given), wanted, rtol=0, atol=1e-14)
