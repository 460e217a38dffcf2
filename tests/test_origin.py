import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import flyweight as fw
from flyweight.origin import Origin, Transform, note_origin, note_transform, origin_of


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
    first, second = Transform("prune", 1, "first"), Transform("prune", 1, "second")
    repair = Transform.of("repair", 1, {"constants": "exact"})
    later = note.then(first).then(repair).then(second)
    assert note.plans == note.transforms == ()
    assert later == Origin("tiny", {}, (first, repair, second))
    assert later.plans == ("first", "second")
    assert repair.data == {"constants": "exact"}


def test_the_state_before_a_transform_is_found():
    first, second = Transform("prune", 1, "first"), Transform("prune", 1, "second")
    later = Origin("tiny").then(first).then(second).then(Transform.of("repair", 1, {}))
    assert later.before_last("prune") == Origin("tiny", {}, (first,))
    with pytest.raises(ValueError, match="quantize"):
        later.before_last("quantize")


def test_a_transform_is_noted_on_a_module_with_a_note_only():
    model, change = nn.Linear(1, 1), Transform.of("repair", 1, {})
    note_transform(model, change)
    assert origin_of(model) is None
    note_origin(model, Origin("tiny"))
    note_transform(model, change)
    assert origin_of(model) == Origin("tiny", {}, (change,))
    with pytest.raises(ValueError, match="JSON"):
        Transform.of("repair", 1, {"error": float("inf")})


def test_a_note_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Origin("tiny").architecture = "other"


def test_something_else_under_the_name_is_no_note():
    model = nn.Linear(1, 1)
    model._flyweight_origin = "tiny"
    assert origin_of(model) is None


def features(num_classes=3):
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Dropout()]
    body = nn.Sequential(*layers, nn.Conv2d(4, num_classes, 1))
    return create_feature_extractor(body, {"3": "early", "5": "late"})


def traced():
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)]
    return torch.fx.symbolic_trace(nn.Sequential(*layers))


@pytest.mark.parametrize("build", [features, traced])
def test_a_cut_program_keeps_its_origin(build, tmp_path):
    image = torch.rand(1, 3, 8, 8)
    path = tmp_path / "program.safetensors"
    model = fw.create(build).eval()
    plan = fw.plan(fw.trace(model, (image,)), {"0.weight": 0.5})
    small = copy.deepcopy(fw.prune(model, plan)).eval()
    fw.save(small, path)
    wanted, found = small(image), fw.load(path, build=build)(image)
    values = found.values() if isinstance(found, dict) else [found]
    wants = wanted.values() if isinstance(wanted, dict) else [wanted]
    assert all(torch.equal(*pair) for pair in zip(values, wants, strict=True))
