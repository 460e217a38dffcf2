import math
import warnings

import pytest
import torch
from torch import nn

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.pruning import PruningPlan, plan, prune
from flyweight.pruning.verification import largest_error, require_same

X = torch.rand(2, 3, 6, 6)


class Net(nn.Module):
    """Does something after its layers, to be replaced after the trace."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.after = lambda y, net, x: y
        self.inside = lambda y: y

    def forward(self, x):
        y = self.inside(self.norm(self.a(x)).relu())
        return self.after(self.b(y), self, x)


def made_and_changed(**changes):
    """Return a network, a plan for it, and the network with other code."""
    torch.manual_seed(0)  # Of other weights, few leave no channel above zero.
    model = Net()
    made = plan(trace(model, (X,)), 0.5)
    for name, code in changes.items():
        setattr(model, name, code)
    return model, made


def test_a_scale_that_changes_with_the_width_is_found_whatever_its_size():
    model, made = made_and_changed(inside=lambda y: y * (1 + 1e-6 * y.shape[1]))
    with pytest.raises(PlanError, match=r"error of .* in evaluation \(allowed 1e-09\)"):
        prune(model, made)


def test_the_group_to_blame_is_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1))
    made = plan(trace(model, (X,)), 0.5)

    class Scaled(nn.Module):
        def forward(self, y):
            return y.relu() * y.shape[1]

    model[1] = Scaled()
    with pytest.raises(PlanError, match=r"Leave out '0\.weight'; nothing was returned"):
        prune(model, made)


def test_training_is_compared_too():
    def only_in_training(y, net, x):
        return y * net.a.out_channels if net.training else y

    model, made = made_and_changed(after=only_in_training)
    with pytest.raises(PlanError, match=r"relative error of .* in training"):
        prune(model, made)


def test_a_gradient_that_is_lost_is_found():
    def cut(y):
        return y if y.shape[1] == 8 else y.detach()

    model, made = made_and_changed(inside=cut)
    with pytest.raises(PlanError, match=r"a model in which 'a\.bias' receives none"):
        prune(model, made)


def test_the_inputs_of_the_user_are_used():
    def needs_them(y, net, x):
        if not torch.equal(x[0, :, :2, :2].float(), X[0, :, :2, :2]):
            raise ValueError("other inputs")
        return y

    model, made = made_and_changed(after=needs_them)
    assert prune(model, made).a.out_channels == 4


def test_a_plan_that_was_read_draws_inputs_and_warns_where_the_model_refuses_them():
    def refuses(y, net, x):
        if not torch.equal(x[0].float(), X[0]):
            raise ValueError("other inputs")
        return y

    model, made = made_and_changed(after=refuses)
    again = PruningPlan.from_json(made.to_json())
    with pytest.warns(UserWarning, match="was not checked.*fails on the inputs: other inputs"):
        prune(model, again)
    model, made = made_and_changed(inside=lambda y: y * y.shape[1])
    with pytest.raises(PlanError, match="relative error"):
        prune(model, PruningPlan.from_json(made.to_json()))


def test_code_in_single_precision_is_allowed_its_rounding():
    model, made = made_and_changed(inside=lambda y: y.float().exp().log().to(y.dtype))
    small = prune(model, made)
    with torch.no_grad():
        small.b.bias += 1
    with pytest.raises(PlanError, match=r"allowed 0\.001"):
        require_same(model, small, made)


def test_code_that_fails_in_double_precision_runs_in_its_own():
    table = torch.ones(8, 8, 1, 1)

    def mixed(y):
        return nn.functional.conv2d(y, table[: y.shape[1], : y.shape[1]])

    model = Net()
    made = plan(trace(model, (X,)), 0.5)
    model.after = lambda y, net, x: nn.functional.conv2d(y, table[:4, :4])
    assert prune(model, made).a.out_channels == 4


def test_weights_in_double_precision_leave_the_model_as_it_was():
    model, made = made_and_changed()
    small = prune(model, made)
    for network in (model, small):
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert all(p.grad is None and not p.is_inference() for p in network.parameters())
        assert int(network.norm.num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("wanted", "found", "error"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([1.0, math.inf], [1.0, math.inf], 0.0),
        ([1.0, math.inf], [1.0, -math.inf], math.inf),
        ([1.0, math.inf], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([True, False], [True, False], 0.0),
        ([True, False], [True, True], math.inf),
        ([3, 4], [3, 5], math.inf),
        ([], [], 0.0),
        ([1.0], [1.0, 2.0], math.inf),
    ],
)
def test_values_are_compared_by_their_kind(wanted, found, error):
    class Constant(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.register_buffer("values", torch.tensor(values))

        def forward(self, x):
            return self.values

    empty = PruningPlan("", {}, "l1_norm")
    assert largest_error(Constant(wanted), Constant(found), empty, (X,)) == error


def test_nothing_is_said_where_nothing_is_wrong():
    model, made = made_and_changed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, made)


def test_rounding_that_a_batch_of_equal_images_amplifies_is_no_difference():
    torch.manual_seed(0)
    layers = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)]
    model = nn.Sequential(*layers, nn.Conv2d(8, 4, 1))
    assert prune(model, plan(trace(model, (torch.zeros(1, 3, 6, 6),)), 0.5))[1].out_channels == 8
