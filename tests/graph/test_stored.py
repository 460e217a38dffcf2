import threading
from functools import partial

import torch
from torch import nn

from flyweight.graph.stored import clone_structure, copy_module, held_tensors, stored_tensors


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
