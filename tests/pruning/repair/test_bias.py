import copy

import pytest
import torch
from torch import nn

from flyweight.graph import trace
from flyweight.pruning import largest_error, plan, prune
from flyweight.pruning.repair.bias import FoldSettings, fold_constants
from flyweight.pruning.repair.repair import output_error

EXACT = 1e-12
DEAD = (1, 3)


def dead_first(group, tensors):
    """A criterion that removes the channels `DEAD` of eight."""
    return [0.0 if channel in DEAD else 1.0 for channel in range(group.size)]


def net(behind, *, kernel=3, scale=True):
    """A layer whose channels `DEAD` are constants, and what reads it."""
    torch.manual_seed(1)
    first, norm = nn.Conv2d(3, 8, kernel), nn.BatchNorm2d(8)
    model = nn.Sequential(first, norm, nn.SiLU(), *behind).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        if scale:
            norm.weight[list(DEAD)] = 0
        else:
            first.weight[list(DEAD)] = 0
    return model


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(n, 3, 8, 8, dtype=torch.float64) for n in (3, 4)]


def cut(model, batches):
    graph = trace(model, (batches[0],))
    made = plan(graph, {"0.weight": 0.25}, dead_first)
    assert set(range(8)) - set(made.keep["0.weight"]) == set(DEAD)
    return prune(model, made), made


def gap(model, small, batches):
    with torch.no_grad():
        return max(float((small(x) - model(x)).abs().max() / model(x).abs().max()) for x in batches)


READERS = {
    "bias": [nn.Conv2d(8, 5, 3)],
    "dilated": [nn.Conv2d(8, 5, 2, dilation=2, stride=2)],
    "normalised": [nn.Conv2d(8, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()],
    "one by one": [nn.Conv2d(8, 5, 1, padding=0)],
    "pooled": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)],
    "flattened": [nn.Flatten(), nn.Linear(8 * 36, 4)],
    "grouped": [nn.Conv2d(8, 6, 3, groups=2)],
    "depthwise": [nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 5, 1)],
}


@pytest.mark.parametrize("scale", [True, False], ids=["zero scale", "zero filter"])
@pytest.mark.parametrize("kind", sorted(READERS.keys() - {"grouped"}))
def test_a_removed_constant_leaves_nothing_missing(kind, scale, batches):
    model = net(copy.deepcopy(READERS[kind]), scale=scale)
    small, made = cut(model, batches)
    assert gap(model, small, batches) > 1e-3, "the constants must count"
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    found = fold_constants(model, small, made, batches)
    assert [layer.exact for layer in found.layers] == [True]
    assert found.layers[0].channels >= len(DEAD)
    assert gap(model, small, batches) <= EXACT
    assert gap(model, small, [torch.randn(5, 3, 8, 8, dtype=torch.float64) * 50]) <= EXACT
    assert {name: value.shape for name, value in small.state_dict().items()} == shapes


def test_groups_read_their_own_constants(batches):
    model = net(copy.deepcopy(READERS["grouped"]))
    with torch.no_grad():
        model[1].weight[[5, 7]] = 0  # what leaves one group leaves the other
    graph = trace(model, (batches[0],))
    made = plan(graph, {"0.weight": 0.5}, lambda group, _: [1.0, 0, 1, 0][: group.size])
    small = prune(model, made)
    assert gap(model, small, batches) > 1e-3
    found = fold_constants(model, small, made, batches)
    assert [(layer.channels, layer.exact) for layer in found.layers] == [(4, True)]
    assert gap(model, small, batches) <= EXACT


def test_zero_padding_is_exact_inside_and_only_on_demand(batches):
    model = net([nn.Conv2d(8, 5, 3, padding=1)])
    small, made = cut(model, batches)
    before = copy.deepcopy(small.state_dict())
    found = fold_constants(model, small, made, batches)
    assert found.layers == ()
    assert "'3.weight' pads with zeros" in found.skipped[0]
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    found = fold_constants(model, small, made, batches, FoldSettings(approximate=True))
    assert [layer.exact for layer in found.layers] == [False]
    with torch.no_grad():
        apart = (small(batches[0]) - model(batches[0])).abs()
    assert float(apart[:, :, 1:-1, 1:-1].max()) <= EXACT
    assert float(apart.max()) > 1e-3


def test_a_constant_zero_needs_nothing(batches):
    model = net([nn.Conv2d(8, 5, 3, padding=1)])
    with torch.no_grad():
        model[1].bias[list(DEAD)] = 0
    small, made = cut(model, batches)
    found = fold_constants(model, small, made, batches)
    assert found.layers == ()
    assert found.skipped == ()
    assert gap(model, small, batches) <= EXACT


def test_what_varies_is_no_constant(batches):
    model = net([nn.Conv2d(8, 5, 3)])
    with torch.no_grad():
        model[1].weight[DEAD[0]] = 1.0
    small, made = cut(model, batches)
    assert fold_constants(model, small, made, batches).layers[0].channels == 1


def test_what_only_looks_constant_is_left(batches):
    """A channel that clips on all these images would not on others."""
    model = net([nn.Conv2d(8, 5, 3)])
    model[2] = nn.ReLU6()
    with torch.no_grad():
        model[1].weight[list(DEAD)] = 1e-3
        model[1].bias[list(DEAD)] = 9.0
    small, made = cut(model, batches)
    assert fold_constants(model, small, made, batches).layers == ()
    means = FoldSettings(means=True)
    found = fold_constants(model, small, made, batches, means)
    assert [(layer.channels, layer.exact) for layer in found.layers] == [(2, False)]
    assert gap(model, small, batches) <= EXACT


def test_means_of_any_channel(batches):
    model = net([nn.Conv2d(8, 5, 1)])
    with torch.no_grad():
        model[1].weight[list(DEAD)] = 1.0
    small, made = cut(model, batches)
    images = torch.cat(batches)
    lost = output_error(model, small, [images])
    found = fold_constants(model, small, made, batches, FoldSettings(means=True))
    assert [layer.exact for layer in found.layers] == [False]
    assert output_error(model, small, [images]) < lost
    with torch.no_grad():
        torch.testing.assert_close(
            small(images).mean((0, 2, 3)), model(images).mean((0, 2, 3)), rtol=0, atol=1e-12
        )


def test_a_layer_without_room(batches):
    model = net([nn.Conv2d(8, 5, 3, bias=False), nn.ReLU()])
    small, made = cut(model, batches)
    found = fold_constants(model, small, made, batches)
    assert "'3.weight' has no bias" in found.skipped[0]
    assert largest_error(model, small, made, (batches[0],)) <= EXACT
    found = fold_constants(model, small, made, batches, FoldSettings(create_bias=True))
    assert found.layers[0].into == "a new bias"
    assert small[3].bias.requires_grad
    assert gap(model, small, batches) <= EXACT


def test_a_sum_with_something_that_varies_is_no_constant(batches):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
            self.two, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.head(self.norm(self.one(x)) + self.two(x))

    torch.manual_seed(0)
    model = Sum().double().eval()
    with torch.no_grad():
        model.norm.weight[list(DEAD)] = 0
        model.norm.bias.fill_(1.0)
    made = plan(trace(model, (batches[0],)), {"one.weight": 0.25}, dead_first)
    small = prune(model, made)
    assert fold_constants(model, small, made, batches).layers == ()
    with torch.no_grad():
        model.two.weight[list(DEAD)] = 0
    small = prune(model, made)
    assert fold_constants(model, small, made, batches).layers[0].exact
    assert gap(model, small, batches) <= EXACT


def test_no_pictures(batches):
    model = net([nn.Conv2d(8, 5, 3)])
    small, made = cut(model, batches)
    assert fold_constants(model, small, made, []).skipped == ("no images were given",)
