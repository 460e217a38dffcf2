import threading

import torch
from torch import nn

from flyweight.graph.stored import copy_module, held_tensors, stored_tensors


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
