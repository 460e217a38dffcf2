"""What flyweight 0.1.0 wrote is still read; see fixtures/v0_1_0/README.md."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import flyweight as fw
from flyweight.checkpoint import read

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1_0"


@pytest.fixture
def tiny_network(monkeypatch):
    """The builder of the run folder's network, importable as its config names it."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    yield __import__("tiny_network").build
    sys.modules.pop("tiny_network", None)


def test_a_pruned_detector_computes_what_it_did():
    found = load_file(FIXTURES / "detector_outputs.safetensors")
    model = fw.load(FIXTURES / "detector.safetensors")
    with torch.no_grad():
        outputs = model(found["input"])
    for place, output in enumerate(outputs):
        torch.testing.assert_close(output, found[f"output_{place}"], rtol=1e-4, atol=1e-5)


def test_a_plan_is_read_and_fits_its_network():
    plan = fw.PruningPlan.from_json((FIXTURES / "detector_plan.json").read_text())
    model = fw.create("yolov3_mobilenet_v1", num_classes=3, width=0.0625)
    graph = fw.trace(model, (torch.zeros(1, 3, 64, 64),))
    small = fw.prune(model, plan)
    assert fw.trace(small, (torch.zeros(1, 3, 64, 64),)).cost() == plan.cost(graph)


@pytest.mark.parametrize(
    "name", json.loads((FIXTURES / "fingerprints.json").read_text()), ids=lambda name: name
)
def test_fingerprints_stay(name):
    saved = json.loads((FIXTURES / "fingerprints.json").read_text())[name]
    model = fw.create(name, **saved["arguments"])
    graph = fw.trace(model, (torch.zeros(1, 3, saved["side"], saved["side"]),))
    assert graph.fingerprint == saved["fingerprint"]
    assert len(graph.groups) == saved["groups"]
    assert len(graph.prunable()) == saved["prunable"]
    assert (graph.cost().macs, graph.cost().params) == (saved["macs"], saved["params"])


@pytest.mark.parametrize(
    "path",
    [
        "demo/dense/best_model.safetensors",
        "demo/pruned/before_finetuning.safetensors",
        "demo/pruned/best_model.safetensors",
        "run/tiny/best_model.safetensors",
        "run/tiny/pruned.safetensors",
    ],
)
def test_checkpoints_of_a_run_folder_load(tiny_network, path):
    model = fw.load(FIXTURES / path, build=tiny_network)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def _score(outputs, batch):
    return outputs.softmax(1).gather(1, batch[1][:, None])[:, 0].double()


def _scan(tiny_network, save_to):
    model = fw.create(tiny_network, num_classes=10)
    best = fw.load(FIXTURES / "run/tiny/best_model.safetensors", build=tiny_network)
    model.load_state_dict(best.state_dict())
    graph = fw.trace(model.eval(), (torch.zeros(1, 3, 32, 32),))
    found = load_file(FIXTURES / "scan_batches.safetensors")
    batches = [(found[f"images_{place}"], found[f"labels_{place}"]) for place in range(3)]
    return fw.scan(graph, model, batches, _score, ratios=(0.25, 0.5), save_to=save_to)


def test_an_interrupted_scan_is_resumed(tiny_network, tmp_path):
    target = tmp_path / "interrupted.json"
    shutil.copytree(FIXTURES / "interrupted.parts", tmp_path / "interrupted.json.parts")
    states = tmp_path / "interrupted.json.parts" / "batch-000000.json"
    changed = states.read_text()
    curves = _scan(tiny_network, target)
    whole = fw.Sensitivity.from_json((FIXTURES / "whole.json").read_text())
    assert curves.curves.keys() == whole.curves.keys()
    assert curves.baseline == pytest.approx(whole.baseline, rel=1e-5)
    for layer, points in whole.curves.items():
        for one, other in zip(curves.curves[layer], points, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-5)
    assert curves.made_from["weights"] == whole.made_from["weights"]
    assert not states.exists() or states.read_text() == changed


def test_curves_of_a_scan_make_a_plan(tiny_network):
    curves = fw.Sensitivity.from_json((FIXTURES / "sens.json").read_text())
    graph = fw.trace(tiny_network(10), (torch.zeros(1, 3, 32, 32),))
    plan = curves.plan(budget=fw.Budget(macs=0.8), graph=graph)
    assert plan.cost(graph).macs <= 0.8 * graph.cost().macs


def test_a_module_without_origin_is_pruned_by_a_saved_plan(tiny_network):
    plan = fw.PruningPlan.from_json((FIXTURES / "demo/pruned/plan.json").read_text())
    small = fw.prune(tiny_network(10), plan)
    assert isinstance(small, nn.Module)
    saved = load_file(FIXTURES / "demo/pruned/best_model.safetensors")
    assert {name: tuple(t.shape) for name, t in small.state_dict().items()} == {
        name: tuple(tensor.shape) for name, tensor in saved.items()
    }


def test_plans_of_a_checkpoint_are_transforms(tmp_path):
    found = read(FIXTURES / "detector.safetensors")
    assert [(one.kind, one.version) for one in found.transforms] == 2 * [("prune", 1)]
    assert found.plans[0] == fw.PruningPlan.from_json((FIXTURES / "detector_plan.json").read_text())
    assert found.parents == ()
    assert all(isinstance(value, float) for value in found.metrics.values())
    fw.save(fw.load(FIXTURES / "detector.safetensors"), tmp_path / "again.safetensors")
    assert read(tmp_path / "again.safetensors").transforms == found.transforms
