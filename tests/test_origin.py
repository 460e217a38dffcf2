import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
from torch import nn

from flyweight.origin import Origin, note_origin, origin_of


def test_a_plain_module_has_none():
    assert origin_of(nn.Linear(1, 1)) is None


def test_a_note_is_found_again_and_survives_a_copy():
    model, note = nn.Linear(1, 1), Origin("tiny", {"width": 0.5})
    note_origin(model, note)
    assert origin_of(model) is note
    assert origin_of(copy.deepcopy(model)) == note
    assert origin_of(pickle.loads(pickle.dumps(model))) == note
    assert list(model.state_dict()) == ["weight", "bias"]


def test_plans_are_added_in_order_to_a_new_note():
    note = Origin("tiny")
    later = note.then("first").then("second")
    assert note.plans == ()
    assert later == Origin("tiny", {}, ("first", "second"))


def test_a_note_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Origin("tiny").architecture = "other"


def test_something_else_under_the_name_is_no_note():
    model = nn.Linear(1, 1)
    model._flyweight_lineage = "tiny"
    assert origin_of(model) is None
