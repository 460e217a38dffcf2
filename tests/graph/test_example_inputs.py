import json

import pytest
import torch

from flyweight.graph.example_inputs import describe, draw, freeze_spec, tensors_in

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
