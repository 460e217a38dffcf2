import functools
import types
from collections import ChainMap, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from flyweight.errors import GraphError
from flyweight.graph.containers import placed_tensors, tensors_in, with_tensors

Boxes = namedtuple("Boxes", "points scores")


@dataclass(slots=True)
class Slotted:
    points: object
    text: str = "a"


class Inherited(Slotted):
    __slots__ = ("__hidden", "unset")

    def __init__(self, points, hidden):
        super().__init__(points)
        self.__hidden = hidden


@dataclass(frozen=True)
class Frozen:
    points: object
    size: tuple[int, ...] = (3, 4)


class Plain:
    def __init__(self, points):
        self.points = points

    def first(self):
        return self.points


class Marked(list):
    """A list with an attribute."""


class Attributed(OrderedDict):
    """Its items are its attributes, as in the outputs of transformers."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__.update(items)


class Careless(UserDict):
    """Reads `data` before it is there, where it is copied in the usual way."""

    def __getattr__(self, name):
        return self.data[name]


class Looped:
    def __init__(self, points):
        self.points, self.myself = points, self


class Text(str):
    """A text with an attribute."""


class Colour(Enum):
    RED = torch.ones(1)


def number(value):
    return torch.tensor(float(value))


def marked(tensor):
    found = Marked([tensor])
    found.extra = number(2)
    return found


def text_with(tensor):
    found = Text("a")
    found.tensor = tensor
    return found


def tensor_with(other):
    found = number(1)
    found.other = other
    return found


class WithShared:
    shared, more, name = number(1), [number(2)], "a"


CONTAINERS = {
    "tensor": (number(1), {"output": 1}),
    "list": ([number(1), 2, (number(3),)], {"output[0]": 1, "output[2][0]": 3}),
    "dictionary": ({"a": number(1), 3: {"b": number(2)}}, {"output['a']": 1, "output[3]['b']": 2}),
    "default dictionary": (defaultdict(list, a=[number(1)]), {"output['a'][0]": 1}),
    "named tuple": (Boxes(number(1), [number(2)]), {"output.points": 1, "output.scores[0]": 2}),
    "named results": (torch.ones(1, 2).max(1).values, {"output": 1}),
    "slots": ([Slotted(number(1))], {"output[0].points": 1}),
    "inherited": (
        Inherited(number(1), number(2)),
        {"output._Inherited__hidden": 2, "output.points": 1},
    ),
    "frozen": ((Frozen(deque([number(1)])),), {"output[0].points[0]": 1}),
    "object": (Plain(Plain(number(1))), {"output.points.points": 1}),
    "namespace": (types.SimpleNamespace(a=number(1)), {"output.a": 1}),
    "deque": (deque([number(1), number(2)], 5), {"output[0]": 1, "output[1]": 2}),
    "set": ({number(2), number(1)}, {"output[0]": 1, "output[1]": 2}),
    "frozen set": (frozenset([number(1)]), {"output[0]": 1}),
    "user dictionary": (UserDict(a=number(1)), {"output['a']": 1}),
    "careless": (Careless(a=number(1)), {"output['a']": 1}),
    "user list": (UserList([number(1)]), {"output[0]": 1}),
    "chain": (ChainMap({"a": number(1)}), {"output.maps[0]['a']": 1}),
    "proxy": (types.MappingProxyType({"a": number(1)}), {"output['a']": 1}),
    "values": ({"a": number(1)}.values(), {"output[0]": 1}),
    "items": ({"a": number(1)}.items(), {"output[0][1]": 1}),
    "keys": ({number(1): "a"}.keys(), {"output[0]": 1}),
    "attributed": (Attributed(a=number(1)), {"output['a']": 1}),
    "list with an attribute": (marked(number(1)), {"output[0]": 1, "output.extra": 2}),
    "text with an attribute": (text_with(number(1)), {"output.tensor": 1}),
    "tensor with an attribute": (tensor_with([number(2)]), {"output": 1, "output.other[0]": 2}),
    "loop": (Looped(number(1)), {"output.points": 1}),
    "parameter": (nn.Parameter(number(1)), {"output": 1}),
}
SHARING = {
    "partial": (
        functools.partial(torch.add, number(1), other=number(2)),
        {"output.args[0]": 1, "output.keywords['other']": 2},
    ),
    "method": (Plain(number(1)).first, {"output.__self__.points": 1}),
    "method of a tensor": (number(1).sum, {"output.__self__": 1}),
    "slice": (slice(number(1), None), {"output.start": 1}),
    "tensors as keys": (
        {number(1): 1, (2, number(2)): None},
        {"output.keys()[0]": 1, "output.keys()[1][1]": 2},
    ),
    "attribute of a class": ([WithShared()], {"output[0].shared": 1, "output[0].more[0]": 2}),
    "class": (WithShared, {"output.shared": 1, "output.more[0]": 2}),
    "packed": (pack_sequence([torch.ones(1)]), {"output.data": 1, "output.batch_sizes": 1}),
}
HARMLESS = [
    *(None, 1, 2.5, 1j, True, "a", b"a", range(3), torch.Size([2]), torch.float16, Colour.RED),
    *(torch.device("cpu"), Path("a"), np.float64(1), [1, [2.0, None]], {}, int, torch.relu, len),
    *(lambda x: x, object(), Frozen((1, 2)), functools.partial(torch.relu), Plain.first),
]


def places_of(value):
    return {place: float(tensor.detach()) for place, tensor in placed_tensors(value)}


@pytest.mark.parametrize("name", [*CONTAINERS, *SHARING])
def test_every_tensor_is_found_with_its_place(name):
    value, places = (CONTAINERS | SHARING)[name]
    assert places_of(value) == places


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
def test_what_holds_no_tensors(value):
    assert list(placed_tensors(value)) == []
    assert with_tensors(value, torch.neg) == value


def test_equal_parts_of_a_set_of_several_shapes_have_an_order():
    sets = [{torch.zeros(2), torch.ones(2), torch.zeros(1)} for _ in range(5)]
    found = [[tensor.tolist() for tensor in tensors_in(one)] for one in sets]
    assert found == [[[0.0], [0.0, 0.0], [1.0, 1.0]]] * 5


def closure_over(value):
    return lambda: value


def function_with(value):
    def inner(x=value):
        return x

    return inner


class Later:
    def __init__(self, module):
        self.head = module

    def __call__(self):
        return self.head(torch.ones(1))


REFUSED = {
    "generator": ([1, (x for x in [])], "a generator, which computes later at output[1]"),
    "numpy": (Boxes(1, np.ones(2)), "a numpy array at output.scores"),
    "closure": ({"a": closure_over(number(1))}, "the function 'closure_over.<locals>.<lambda>'"),
    "closure over a module": (closure_over(nn.Identity()), "the function"),
    "closure over a closure": (closure_over(closure_over(number(1))), "the function"),
    "default": (function_with(number(1)), "the function 'function_with.<locals>.inner'"),
    "iterator": (iter([number(1)]), "an object of type list_iterator"),
    "map": (map(torch.neg, [number(1)]), "an object of type map"),
    "module": (Later(nn.Identity()), "a module (torch.nn.modules.linear.Identity)"),
    "method of a module": (functools.partial(nn.Identity().forward, 1), "at output.func.__self__"),
    "memory": (memoryview(b"a"), "an object of type memoryview"),
    "error": (ValueError(number(1)), "an object of type ValueError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_an_error_that_names_the_place(name):
    value, text = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        list(placed_tensors(value))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Return the tensors themselves" in str(caught.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_has_parts_of_several_sizes():
    value = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
    with pytest.raises(GraphError, match="a nested tensor, whose parts have sizes of their own"):
        list(placed_tensors(value))


def test_a_closure_over_plain_values_is_no_output():
    assert list(placed_tensors(closure_over([1, "a", torch.relu]))) == []


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_copy_with_other_tensors_keeps_types_and_places(name):
    value, places = CONTAINERS[name]
    twin = with_tensors(value, lambda tensor: tensor.detach() + 10)
    assert type(twin) is type(value) or name == "parameter"
    assert places_of(twin) == {place: number + 10 for place, number in places.items()}
    assert places_of(value) == places


def test_a_copy_keeps_order_length_factory_and_other_attributes():
    ordered = OrderedDict(a=number(1), b=number(2))
    ordered.move_to_end("a")
    assert list(with_tensors(ordered, torch.neg)) == ["b", "a"]
    assert [float(tensor) for tensor in with_tensors(ordered, torch.neg).values()] == [-2, -1]
    assert with_tensors(deque([number(1)], 4), torch.neg).maxlen == 4
    assert with_tensors(defaultdict(list), torch.neg)["new"] == []
    frozen = with_tensors(Frozen(number(1), (7,)), torch.neg)
    assert (float(frozen.points), frozen.size) == (-1, (7,))


def test_a_copy_shares_what_has_no_tensors_and_copies_what_can_be_written_into():
    other, inner = Plain([1]), {"x": number(1)}
    given = [other, inner, inner, np.ones(2)]
    twin = with_tensors(given, lambda tensor: tensor)
    assert twin[0] is other
    assert twin[3] is given[3]
    assert twin[1] is twin[2]
    twin[1].clear()
    assert list(inner) == ["x"]


def test_a_tensor_that_occurs_twice_is_changed_once():
    tensor = number(1)
    twin = with_tensors((tensor, Attributed(a=tensor)), torch.neg)
    assert twin[0] is twin[1]["a"] is twin[1].__dict__["a"]
