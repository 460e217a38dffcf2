import json
import math
from collections import OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pytest
import torch
from torch import nn

import flyweight as fw
from flyweight.errors import GraphError, PlanError
from flyweight.graph.example_inputs import Example, describe, draw, freeze_spec, tensors_in

Pair = namedtuple("Pair", "image gain")


@dataclass(frozen=True, slots=True)
class Sample:
    image: torch.Tensor
    size: tuple[int, int] = (8, 6)


class Batch(UserDict):
    """Items are attributes, as in the inputs that transformers prepares."""

    def __getattr__(self, name):
        if name == "data":
            raise AttributeError(name)
        return self.data[name]


class Mode(IntEnum):
    TRAIN = 1


INPUTS = (
    torch.zeros(1, 3, 8, 6),
    [torch.zeros(3, 4, 4, dtype=torch.float64), {"ids": torch.zeros(2, dtype=torch.int64)}],
    0.5,
    None,
)
SPEC = [((1, 3, 8, 6), "float32"), [((3, 4, 4), "float64"), {"ids": ((2,), "int64")}], 0.5, None]


def test_described_and_drawn_again():
    assert describe(INPUTS) == SPEC
    drawn = draw(SPEC, torch.Generator().manual_seed(0), torch.zeros(1))
    assert describe(drawn) == SPEC
    assert drawn[2:] == [0.5, None]
    assert 0 <= float(drawn[0].min()) < float(drawn[0].max()) < 1


def test_a_spec_survives_json():
    assert freeze_spec(json.loads(json.dumps(SPEC))) == SPEC


@pytest.mark.parametrize("pair", [[1, 2], ["a", "float32"], [[1, 2], "red"], [[1.5], "float32"]])
def test_pairs_that_are_no_tensors(pair):
    assert draw(pair, torch.Generator(), torch.zeros(1)) == pair


def test_tensors_are_found_in_objects_too():
    class Result:
        def __init__(self):
            self.boxes = torch.ones(1)
            self.more = {"scores": (torch.ones(2), "text")}

    assert [len(tensor) for tensor in tensors_in([Result(), torch.ones(3)])] == [1, 2, 3]
    assert list(tensors_in(torch.nn.Linear(2, 2))) == []


IMAGE = ((1, 3, 8, 6), "float32")
FLAG = ((2,), "bool")


def marked(kind, **rest):
    return {"#": kind, **rest}


HERE = __name__
KINDS = {
    "named tuple": (
        Pair(torch.zeros(1, 3, 8, 6), 2.5),
        marked("named tuple", type=f"{HERE}.Pair", fields={"image": IMAGE, "gain": 2.5}),
    ),
    "whole-number keys": (
        {3: torch.zeros(1, 3, 8, 6), None: 1},
        marked("mapping", type="dict", items=[[3, IMAGE], [None, 1]]),
    ),
    "user mapping": (
        Batch(image=torch.zeros(1, 3, 8, 6)),
        marked("mapping", type=f"{HERE}.Batch", items=[["image", IMAGE]]),
    ),
    "object": (
        Sample(torch.zeros(1, 3, 8, 6)),
        marked("object", type=f"{HERE}.Sample", fields={"image": IMAGE, "size": [8, 6]}),
    ),
    "the marking key": (
        {"#": torch.zeros(2, dtype=torch.bool)},
        marked("mapping", type="dict", items=[["#", FLAG]]),
    ),
    "a list that reads like a tensor": (
        [[3, 4], "float32"],
        marked("sequence", type="list", items={"0": [3, 4], "1": "float32"}),
    ),
    "deque": (
        deque([1, [torch.zeros(2, dtype=torch.bool)]]),
        marked("sequence", type="collections.deque", items={"0": 1, "1": [FLAG]}),
    ),
    "slice": (
        [slice(1, None)],
        [marked("slice", items={"0": 1, "1": None, "2": None})],
    ),
    "range": (range(2, 8, 3), marked("range", items={"0": 2, "1": 8, "2": 3})),
    "infinity": (math.inf, marked("number", value="inf")),
    "complex": (1 + 2j, marked("number", value="(1+2j)")),
    "type": (torch.float16, marked("dtype", name="float16")),
    "device": (torch.device("cpu"), marked("device", name="cpu")),
    "ordered": (OrderedDict(a=[torch.zeros(2, dtype=torch.bool)]), {"a": [FLAG]}),
    "numpy number": (np.float32(0.5), 0.5),
}


@pytest.mark.parametrize("name", KINDS)
def test_descriptions_survive_json_and_can_be_drawn(name):
    value, spec = KINDS[name]
    assert describe(value) == spec
    read = freeze_spec(json.loads(json.dumps(spec, allow_nan=False)))
    assert read == spec
    drawn = draw(read, torch.Generator().manual_seed(0), torch.zeros(1))
    assert without_classes(describe(drawn)) == without_classes(spec)


def without_classes(spec):
    # Objects of classes from outside are replaced by others.
    return {**spec, "type": ""} if isinstance(spec, dict) and "type" in spec else spec


def test_drawn_objects_are_read_as_the_example_is():
    def drawn(value):
        return draw(describe(value), torch.Generator().manual_seed(0), torch.zeros(1))

    pair = drawn(Pair(torch.zeros(2), {4: torch.zeros(3)}))
    assert pair[0] is pair.image
    assert pair.gain[4].shape == (3,)
    batch = drawn(Batch(image=torch.zeros(2)))
    assert batch["image"] is batch.image
    assert not hasattr(batch, "mask")
    assert drawn(Sample(torch.zeros(2))).size == [8, 6]


@pytest.mark.parametrize(
    "value", [Mode.TRAIN, np.ones(2), object(), Sample(None)], ids=lambda v: type(v).__name__
)
def test_what_has_only_a_name_is_not_drawn(value):
    spec = describe([value])
    assert spec[0]["#"] == "unknown"
    assert freeze_spec(json.loads(json.dumps(spec))) == spec
    with pytest.raises(GraphError, match=r"given.*of which only this name is known"):
        draw(spec, torch.Generator(), torch.zeros(1))


def test_what_contains_itself_is_described():
    value = [torch.zeros(2)]
    value.append(value)
    assert describe(value) == [((2,), "float32"), {"#": "unknown", "type": "list"}]


DAMAGED = {
    "kind": marked("program", name="x"),
    "field": marked("object", type="x", fields={"a b": 1}),
    "keyword": marked("named tuple", type="x", fields={"class": 1}),
    "no fields": marked("object", type="x"),
    "items": marked("mapping", type="x", items=[1, 2]),
    "key": marked("mapping", type="x", items=[[{"a": 1}, 2]]),
    "type": marked("unknown", type=1),
    "dtype": marked("dtype", name="nn"),
    "device": marked("device", name="moon"),
    "number": marked("number", value="many"),
    "range": marked("range", items={"0": "a"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_description_makes_no_plan(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    plan = fw.plan(fw.trace(model, (torch.zeros(1, 3, 2, 2),)), 0.5)
    text = plan.to_json().replace('[[[1, 3, 2, 2], "float32"]]', json.dumps([DAMAGED[name]]))
    assert "#" in text
    with pytest.raises(PlanError):
        fw.PruningPlan.from_json(text)


@pytest.mark.parametrize("shape", [(4, 7), (2, 5, 1), (3,), (2, 2, 2)])
def test_drawn_masks_hide_neither_all_nor_nothing(shape):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        mask = draw((shape, "bool"), generator, torch.zeros(1))
        rows = mask.flatten() if mask.ndim == 1 else mask.reshape(-1, max(shape[-2:]))
        assert not rows.all(-1).any()
        assert rows.any(-1).all()


def test_drawn_numbers_are_indices_of_any_table():
    drawn = draw(((2, 3), "int64"), torch.Generator(), torch.zeros(1))
    assert drawn.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert draw(((2,), "complex64"), torch.Generator(), torch.zeros(1)).imag.abs().min() > 0


def test_an_example_is_copied_with_its_types():
    example = Example((Pair(torch.zeros(2), {4: Sample(torch.ones(2))}),), {"more": Batch(x=1)})
    twin = example.mapped(lambda tensor: tensor + 1)
    assert type(twin.args[0]) is Pair
    assert type(twin.args[0].gain[4]) is Sample
    assert twin.args[0].gain[4].image.tolist() == [2.0, 2.0]
    assert dict(twin.tensors()).keys() == {"args[0].image", "args[0].gain[4].image"}
    assert type(twin.kwargs["more"]) is Batch


class Reader(nn.Module):
    def __init__(self, read):
        super().__init__()
        self.first, self.last, self.read = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1), read

    def forward(self, given):
        return self.last(self.first(self.read(given)).relu())


READERS = {
    "named tuple": (lambda b: b.image * b.gain, lambda i: Pair(i, i[:, :1])),
    "whole-number keys": (lambda b: b[0] + b[1], lambda i: {0: i, 1: i}),
    "user mapping": (lambda b: b.image * b["gain"], lambda i: Batch(image=i, gain=i)),
    "slots": (lambda b: b.image, Sample),
    "nested": (lambda b: b[0]["x"].image[0], lambda i: [{"x": Sample(deque([i]))}]),
}


@pytest.mark.parametrize("name", READERS)
def test_models_are_cut_that_read_their_inputs_from(name):
    read, make = READERS[name]
    given = make(torch.rand(1, 3, 8, 8))
    model = Reader(read).eval()
    plan = fw.plan(fw.trace(model, (given,)), 0.5)
    small = fw.prune(model, fw.PruningPlan.from_json(plan.to_json()))
    assert fw.PruningPlan.from_json(plan.to_json()) == plan
    assert small.first.out_channels == 8
    assert fw.prune(model, plan)(given).shape == (1, 4, 6, 6)


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (torch.rand(1, 3, 8, 8), None, "in a tuple, for example"),
        ({"image": torch.rand(1, 3, 8, 8)}, None, "Received an object of type dict"),
        (((torch.rand(3, 8, 8) for _ in range(2)),), None, "a generator at args\\[0\\]"),
        (([map(torch.neg, [])],), None, "a map at args\\[0\\]\\[0\\]"),
        ((), {"a": iter([])}, "a list_iterator at kwargs\\['a'\\]"),
    ],
)
def test_inputs_in_another_form_are_refused(args, kwargs, text):
    with pytest.raises(GraphError, match=text) as caught:
        fw.trace(nn.Conv2d(3, 8, 3), args, kwargs)
    assert "\n" not in str(caught.value)


def test_positional_inputs_may_be_a_list():
    graph = fw.trace(nn.Conv2d(3, 8, 3), [torch.rand(1, 3, 8, 8)])
    assert graph.inputs == (((1, 3, 8, 8), "float32"),)
