import json

import pytest
import torch
from torch import nn

from flyweight.errors import CheckpointError
from flyweight.graph import trace
from flyweight.origin import Transform
from flyweight.pruning import plan, prune
from flyweight.transform_kinds import TRANSFORMS, apply_transform, require_known


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


def cut():
    return plan(trace(network(), (torch.zeros(1, 3, 8, 8),)), 0.5)


def test_a_cut_is_applied_and_a_repair_changes_no_shape():
    model, made = network(), cut()
    transforms = (
        Transform.of("prune", 1, json.loads(made.to_json())),
        Transform.of("repair", 1, {"steps": []}),
    )
    for transform in require_known(transforms, "file"):
        apply_transform(model, transform)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: t.shape for name, t in prune(network(), made).state_dict().items()}


def test_what_a_file_holds_is_brought_into_its_present_form():
    text = json.dumps(json.loads(cut().to_json()))
    (found,) = require_known([Transform("prune", 1, text)], "file")
    assert found == Transform("prune", TRANSFORMS["prune"].version, cut().to_json())


@pytest.mark.parametrize(("kind", "version"), [("fold", 1), ("prune", 99), ("repair", 0)])
def test_unknown_kinds_and_versions_are_refused_by_name(kind, version):
    with pytest.raises(CheckpointError, match=f"'{kind}' of version {version} in 'a.st'") as caught:
        require_known([Transform(kind, version, "{}")], "a.st")
    assert "\n" not in str(caught.value)


def test_damaged_data_is_an_error():
    with pytest.raises(TypeError):
        require_known([Transform("repair", 1, "[]")], "a.st")


@pytest.mark.parametrize("epsilons", [[], {"1": "large"}, {"1": -1.0}, {"1": float("nan")}])
def test_damaged_epsilons_are_an_error(epsilons):
    with pytest.raises((TypeError, ValueError), match=r"epsilon|no mapping"):
        require_known([Transform("epsilons", 1, json.dumps(epsilons))], "a.st")


def test_epsilons_are_set():
    model = nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.ReLU())
    for path in ("0", "7"):
        with pytest.raises(ValueError, match=f"no epsilon at '{path}'"):
            apply_transform(model, Transform.of("epsilons", 1, {path: 0.25}))
    apply_transform(model, Transform.of("epsilons", 1, {"1": 0.25}))
    assert model[1].eps == 0.25


@pytest.mark.parametrize("factors", [{"up": 0}, {"up": 2.0}, {"up": True}, {"up": "2"}])
def test_a_stride_that_is_none_is_refused(factors):
    with pytest.raises(ValueError, match="the stride of 'up' is"):
        require_known([Transform("rewrite", 1, json.dumps(factors))], "a.st")
