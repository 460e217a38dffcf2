from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from flyweight.errors import ExportError
from flyweight.exporting.flat_inputs import FlatInputs, as_float32, batched, with_batch
from flyweight.graph.example_inputs import Example

Pair = namedtuple("Pair", "image gain")
A, B, C = (torch.full((2, 3), float(value)) for value in range(3))


@dataclass(slots=True)
class Sample:
    image: torch.Tensor
    more: object


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((A,), ("images",)),
        (A, ("images",)),
        ([A, B], ("input_0", "input_1")),
        ((A, A), ("input_0", "input_1")),
        ((A, 2.5, "text", None), ("images",)),
        ({"images": A, "mask": B}, ("images", "mask")),
        (Example((A,), {"mask": B}), ("input_0", "mask")),
        (({"image": A},), ("image",)),
        (({"a": {"x": A}, "b": {"x": B}},), ("input_0", "input_1")),
        (({3: A, 4: B},), ("input_0", "input_1")),
        ((Pair(A, B), C), ("image", "gain", "input_2")),
        ((Sample(A, [B, {"key": C}]),), ("image", "more", "key")),
    ],
)
def test_every_tensor_is_an_input_with_a_name(given, names):
    flat = FlatInputs.of(given)
    assert flat.names == names
    assert len(flat.tensors) == len(names)


def test_the_example_is_built_again_from_other_tensors():
    flat = FlatInputs.of(Example((A, Pair(B, [C, 5])), {"more": Sample(A, B)}))
    numbers = [torch.tensor(float(number)) for number in range(10, 15)]
    filled = flat.filled(numbers)
    assert float(filled.args[0]) == 10
    assert type(filled.args[1]) is Pair
    assert (float(filled.args[1].image), float(filled.args[1].gain[0])) == (11, 12)
    assert filled.args[1].gain[1] == 5
    assert float(filled.kwargs["more"].more) == 14
    assert float(flat.example.kwargs["more"].more[0, 0]) == 1


def test_a_tensor_that_occurs_twice_inside_of_one_input_is_one():
    flat = FlatInputs.of(({"x": A, "y": A}, A))
    assert flat.names == ("x", "input_1")
    filled = flat.filled([B, C])
    assert filled.args[0]["x"] is filled.args[0]["y"] is B
    assert filled.args[1] is C


@pytest.mark.parametrize("given", [5, "images", {1: A}, (), (1, "a"), {}, None])
def test_what_is_no_example_is_refused(given):
    with pytest.raises(ExportError, match="The example of an export must"):
        FlatInputs.of(given)


def test_the_batch_is_the_first_axis_of_what_is_as_long_as_the_first_input():
    inputs = (torch.zeros(()), torch.zeros(2, 3), torch.zeros(5), torch.zeros(2))
    assert batched(inputs) == (False, True, False, True)
    longer = with_batch(inputs, lambda item: torch.cat([item, item]))
    assert [tuple(item.shape) for item in longer] == [(), (4, 3), (5,), (4,)]


def test_whole_numbers_and_truth_values_keep_their_type():
    types = (torch.float64, torch.float16, torch.int64, torch.bool)
    found = [as_float32(torch.zeros(1, dtype=kind)).dtype for kind in types]
    assert found == [torch.float32, torch.float32, torch.int64, torch.bool]
