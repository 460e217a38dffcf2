import functools

import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.graph.closures import blank_twin, fill, functions_that_hold
from flyweight.graph.stored import clone_structure, copy_module
from flyweight.pruning import largest_error

IMAGES = torch.rand(2, 3, 8, 8)


class Hooked(nn.Module):
    """Reads what a hook has kept, as networks that take features out of a backbone do."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.last = nn.Conv2d(8, 2, 1)
        self.kept = kept = {}
        hooks = {
            "attribute": lambda module, given, made: self.kept.update(first=made),
            "variable": lambda module, given, made: kept.update(first=made),
            "default": lambda module, given, made, kept=kept: kept.update(first=made),
            "behind a function": wrapped(lambda made: kept.update(first=made)),
            "partial": functools.partial(keep, kept),
            "method": self.keep,
        }
        self.first.register_forward_hook(hooks[kind])

    def keep(self, module, given, made):
        self.kept["first"] = made

    def forward(self, x):
        self.second(self.first(x).relu())
        return self.last(self.kept["first"].sigmoid())


def keep(kept, module, given, made):
    kept["first"] = made


def wrapped(inner):
    def hook(module, given, made):
        inner(made)

    return hook


KINDS = ["attribute", "variable", "default", "behind a function", "partial", "method"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_of_a_copy_writes_into_the_copy(kind):
    model = Hooked(kind).eval()
    for twin in (copy_module(model), copy_module(model, private=False), clone_structure(model)):
        wanted = twin(IMAGES)
        assert model.kept == {}
        assert set(twin.kept) == {"first"}
        other = twin(torch.rand(2, 3, 8, 8))
        assert not torch.equal(wanted, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", [False, True])
def test_models_with_hooks_that_keep_features_are_cut(kind, used):
    model = Hooked(kind).double().eval()
    images = IMAGES.double()
    if used:
        model(images)
    before = dict(model.kept)
    plan = fw.plan(fw.trace(model, (images,)), 0.5)
    small = fw.prune(model, plan)
    assert model.kept == before
    assert small.first.out_channels == 4
    assert largest_error(model, small, plan, (images,)) < 1e-12
    small(images)
    assert small.kept["first"].shape[1] == 4


def test_a_forward_around_the_old_one_is_that_of_the_copy():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    old = model[0].forward
    model[0].forward = lambda x: 2 * old(x)
    small = fw.prune(model, fw.plan(fw.trace(model, (IMAGES,)), 0.5))
    assert small[0].out_channels == 4
    assert small(IMAGES).shape == model(IMAGES).shape
    twin = copy_module(model)
    with torch.no_grad():
        twin[0].weight.zero_()
        twin[0].bias.zero_()
    assert not twin[0](IMAGES).any()
    assert model[0](IMAGES).any()


def test_what_a_hook_writes_of_the_user_is_written_by_the_copy_that_is_returned_alone():
    seen = {}
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    model[0].register_forward_hook(lambda module, given, made: seen.update(made=made))
    small = fw.prune(model, fw.plan(fw.trace(model, (IMAGES,)), 0.5))
    assert seen == {}
    small(IMAGES)
    assert seen["made"].shape[1] == 4


def test_functions_that_hold_nothing_of_a_model_are_shared():
    seen = []
    model = nn.Sequential(nn.ReLU())
    model.scale, model.note = (lambda x: 2 * x), (lambda x: seen.append(x))
    assert functions_that_hold(model, outside=False) == []
    assert functions_that_hold(model, outside=True) == [model.note]
    twin = copy_module(model, private=False)
    assert twin.scale is model.scale
    assert twin.note is model.note
    assert clone_structure(model).scale is model.scale


def test_a_twin_of_a_function_is_complete():
    def outer(one, two):
        def inner(x, y=one, *, z: int = 3):
            """Add."""
            return one + two + x + y + z if x else inner

        inner.mark = one
        return inner

    function = outer(1, 2)
    twin = blank_twin(function)
    fill(twin, function, lambda value: 10 * value if isinstance(value, int) else value)
    assert function(1) == 8
    assert twin(1) == 10 + 20 + 1 + 10 + 30
    assert (twin.__name__, twin.__doc__, twin.mark) == ("inner", "Add.", 10)
    assert twin.__annotations__ == {"z": int}
