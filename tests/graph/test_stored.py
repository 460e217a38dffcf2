import threading
import warnings
from functools import lru_cache, partial

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from flyweight.graph.stored import (
    clone_structure,
    copy_module,
    held_tensors,
    holds_plain_values,
    renewed,
    run_uncompiled,
    sharing_copy,
    stored_tensors,
    wrapping_attribute,
)


class Holding(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.zeros(3))
        self.loose = torch.zeros(4)


def test_every_place_and_every_tensor():
    model = Holding()
    places = [name for name, _, _ in held_tensors(model)]
    parameters = ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert places == [*parameters, "table", "loose"]
    assert list(stored_tensors(model)) == [n for n in places if n != "second.weight"]


def test_a_place_takes_another_tensor():
    model = Holding()
    for name, tensor, place in list(held_tensors(model)):
        twin = tensor.detach() + 1
        place.put(nn.Parameter(twin) if isinstance(tensor, nn.Parameter) else twin)
        assert torch.equal(stored_tensors(model)[name], twin)
    assert isinstance(model.first.bias, nn.Parameter)
    assert dict(model.named_buffers())["table"].sum() == 3
    assert "loose" not in model.state_dict()


def test_a_copy_shares_what_cannot_be_copied():
    model = Holding()
    model.first.lock = threading.Lock()
    model.names = ["a"]
    twin = copy_module(model, {id(model.table): model.loose})
    assert twin.first.lock is model.first.lock
    assert twin.names == ["a"]
    assert twin.names is not model.names
    assert twin.table is model.loose
    assert twin.first.weight is not model.first.weight
    assert twin.second.weight is twin.first.weight


class Bound(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.width = nn.Linear(2, 2), 2
        self.parts = {"inner": [self.inner]}
        self.cache, self.seen = {}, []
        self.forward = self.run
        self.later = partial(self.run, self.inner)

    def run(self, x):
        return self.width, self.parts["inner"][0](x)


def test_a_clone_is_of_one_piece_and_shares_tensors():
    model = nn.Sequential(Bound())
    twin = clone_structure(model)
    assert twin[0].inner is not model[0].inner
    assert twin[0].inner.weight is model[0].inner.weight
    assert twin[0].parts["inner"][0] is twin[0].inner
    assert twin[0].later.args[0] is twin[0].inner
    twin[0].cache["a"] = 1
    twin[0].seen.append(1)
    assert (model[0].cache, model[0].seen) == ({}, [])
    twin[0].width = 5
    twin[0].inner.weight = nn.Parameter(torch.zeros(2, 2))
    assert twin(torch.ones(2))[0] == 5
    assert model(torch.ones(2))[0] == 2
    assert model[0].inner.weight.abs().sum() > 0


def program():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    names = {"1": "norm", "2": "last"}
    return create_feature_extractor(body, names)


@pytest.mark.parametrize("mode", [True, False])
def test_a_copy_of_a_program_keeps_mode_hooks_and_attributes(mode):
    model, images, seen = program().train(mode), torch.rand(2, 3, 4, 4), []
    model.note, model.width = ["a"], 4
    getattr(model, "1").eval()
    model.register_forward_hook(lambda *_: seen.append("hook"))
    forward = type(model).forward
    twin = copy_module(model, private=False)
    assert type(twin) is not type(model)
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
    assert (twin.note, twin.width) == (["a"], 4)
    assert twin.note is not model.note
    assert getattr(twin, "0").weight is not getattr(model, "0").weight
    torch.manual_seed(0)
    wanted = model(images)
    torch.manual_seed(0)
    found = twin(images)
    assert seen == ["hook", "hook"]
    assert torch.equal(found["last"], wanted["last"])
    sharing = sharing_copy(model)
    assert getattr(sharing, "0").weight is getattr(model, "0").weight
    assert torch.equal(sharing(images)["last"], sharing(images)["norm"])
    assert type(model).forward is forward  # The code of the model itself has not changed its mode.
    assert model.training is mode


def test_a_copy_of_a_compiled_method_is_the_method_of_the_copy():
    model = Bound()
    model.forward = torch.compile(model.run, backend="eager")
    model.later = None
    for twin in (copy_module(model), clone_structure(model)):
        twin.width = 7
        assert twin(torch.zeros(1, 2))[0] == 7
    assert model(torch.zeros(1, 2))[0] == 2


def test_nothing_is_compiled_in_a_clone():
    inner = nn.Linear(2, 2)
    model = nn.Sequential(torch.compile(inner, backend="eager"), nn.DataParallel(nn.Linear(2, 2)))
    model.compile(backend="eager")
    twin = clone_structure(model)
    assert twin._compiled_call_impl is None
    assert [wrapping_attribute(module) for module in twin] == ["_orig_mod", "module"]
    assert twin[0]._orig_mod is not inner
    assert twin[0]._orig_mod.weight is inner.weight
    twin[0]._orig_mod.forward = lambda x: x
    twin[1].module.forward = lambda x: 2 * x
    assert twin(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
    copied = copy_module(model)
    assert wrapping_attribute(copied[0]) == "_orig_mod"
    assert run_uncompiled(copied)(torch.ones(1, 2)).shape == (1, 2)


def test_a_scripted_function_is_shared():
    model = Holding()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.function = torch.jit.script(scripted_double)
    assert copy_module(model).function is model.function


def scripted_double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


class Kind(nn.Parameter):
    """A kind of parameter that training code knows."""


def test_a_copy_keeps_the_marks_of_parameters_and_no_gradients():
    model = Holding()
    model.first.bias = Kind(torch.ones(2), requires_grad=False)
    model.first.bias.rows = ("a", 1)
    model.first.weight.grad = torch.ones(2, 2)
    model.first.weight.note = "w"
    twin = copy_module(model)
    assert type(twin.first.bias) is Kind
    assert (twin.first.bias.rows, twin.first.bias.requires_grad) == (("a", 1), False)
    assert twin.first.weight.note == "w"
    assert twin.first.weight.grad is None
    assert twin.second.weight is twin.first.weight
    narrow = renewed(model.first.bias, torch.zeros(1))
    assert (type(narrow), narrow.shape, narrow.rows) == (Kind, (1,), ("a", 1))


def test_a_copy_of_a_graph_module_keeps_the_mode():
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout())).eval()
    assert {module.training for module in copy_module(model).modules()} == {False}
    assert {module.training for module in copy_module(model.train()).modules()} == {True}


def test_results_that_a_module_keeps_are_copied_without_their_gradients():
    model = nn.Linear(3, 4)
    model.cache = {"table": [model.weight * 2]}
    twin = copy_module(model)
    assert torch.equal(twin.cache["table"][0], model.weight * 2)
    assert not twin.cache["table"][0].requires_grad
    assert model.cache["table"][0].requires_grad


def test_a_cached_method_in_an_attribute_is_that_of_the_copy():
    model = nn.Linear(3, 4)
    model.table = lru_cache(maxsize=7)(model.extra_repr)
    model.table()
    for twin in (copy_module(model), clone_structure(model)):
        assert twin.table.cache_info() == (0, 0, 7, 0)
        assert twin.table.__wrapped__.__self__ is twin
    assert model.table.cache_info().currsize == 1


def test_each_clone_registers_buffers_for_itself():
    model = nn.ReLU()
    twin = clone_structure(model)
    twin.register_buffer("table", torch.ones(2))
    assert not dict(model.named_buffers())
    assert not dict(clone_structure(model).named_buffers())


def test_a_list_that_modules_share_is_one_list_in_every_copy():
    class Part(nn.Module):
        def __init__(self, found):
            super().__init__()
            self.found, self.by_name = found, {"found": found}

    shared = [torch.ones(1), (2, 3)]
    shared.append(shared)
    model = nn.Sequential(Part(shared), Part(shared))
    for twin in (copy_module(model), clone_structure(model)):
        assert twin[0].found is twin[1].found is twin[1].by_name["found"]
        assert twin[0].found is not shared
        assert twin[0].found[2] is twin[0].found
        assert twin[0].found[1] == (2, 3)


class _Memory:
    """Keeps what a forward gives it."""


@pytest.mark.parametrize(
    ("attribute", "plain"),
    [
        ([1, ("a", None), {"b": torch.float32}], True),
        (torch.rand(2), True),
        (nn.Linear(2, 2), True),
        (_Memory(), False),
        ([torch.rand(2)], False),
        (lambda x: x, False),
        (torch.fx.symbolic_trace(nn.Linear(2, 2)), False),
    ],
)
def test_what_a_forward_can_write_into_besides_its_modules_is_found(attribute, plain):
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].kept = attribute
    assert holds_plain_values(model) == plain


def test_a_module_with_hooks_holds_more_than_plain_values():
    model = nn.Linear(2, 2)
    assert holds_plain_values(model.train())
    model.register_forward_hook(lambda *_: None)
    assert not holds_plain_values(model)
