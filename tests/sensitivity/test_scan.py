import json

import pytest
import torch
from tests import strategies
from torch import nn

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.config.shipped_networks import shipped_network
from flyweight.config.tasks import TaskConfig
from flyweight.data.loading import open_set, val_loader
from flyweight.engine.evaluate import evaluate
from flyweight.errors import DataError, PlanError
from flyweight.pruning import plan, prune
from flyweight.sensitivity import scan
from flyweight.tasks.by_name import task_for
from flyweight.zoo import spec_of

RATIOS = (0.25, 0.5)


def near(outputs, batch):
    """Return how near the outputs are to the targets, image by image."""
    return -(outputs - batch[1]).square().mean(1)


def batches(count=3):
    torch.manual_seed(1)
    sizes = [2] * (count - 1) + [1]
    return [
        (torch.randn(n, 3, 4, 4, dtype=torch.float64), torch.randn(n, 1, dtype=torch.float64))
        for n in sizes
    ]


def by_itself(model, data):
    with torch.no_grad():
        return float(torch.cat([near(model(batch[0]), batch) for batch in data]).mean())


def test_numbers_are_those_of_evaluating_every_pruned_network_by_itself():
    model, data = strategies.OneNumber().double().eval(), batches()
    graph = fw.trace(model, (data[0][0],))
    found = scan(graph, model, data, near, ratios=RATIOS)
    assert found.baseline == pytest.approx(by_itself(model, data), rel=1e-12)
    assert set(found.curves) == set(graph.prunable())
    points = 0
    for layer, curve in found.curves.items():
        for point in curve:
            small = prune(model, plan(graph, {layer: point.ratio}))
            assert point.value == pytest.approx(by_itself(small, data), rel=1e-9)
            assert point.value != found.baseline
            points += 1
    assert points >= 2 * len(graph.prunable()) - 2


def test_mixed_groups_are_scanned_when_asked_for():
    torch.manual_seed(0)
    model, data = strategies.build(["normalised"]), batches(1)
    graph = fw.trace(model, (data[0][0],))

    def score(outputs, batch):
        return outputs.flatten(1).mean(1)

    mixed = {name for name, g in graph.groups.items() if g.reason is None and not g.exact}
    assert mixed
    assert not mixed & set(scan(graph, model, data, score, ratios=(0.5,)).curves)
    found = scan(graph, model, data, score, ratios=(0.5,), inexact=True)
    for name in mixed:
        small = prune(model, plan(graph, {name: 0.5}, inexact=True))
        with torch.no_grad():
            expected = float(small(data[0][0]).flatten(1).mean(1).mean())
        assert found.curves[name][0].value == pytest.approx(expected, rel=1e-12)


class Moody(nn.Module):
    """Another run for every batch: nothing of one run serves the next."""

    def __init__(self):
        super().__init__()
        self.body = strategies.OneNumber()
        self.calls = 0

    def forward(self, x):
        y = self.body(x)
        return y + 0 if len(x) > 1 else y


def test_batches_that_run_otherwise_are_run_whole():
    model, data = Moody().double().eval(), batches()
    graph = fw.trace(model, (data[0][0],))
    found = scan(graph, model, data, near, ratios=(0.5,))
    for layer, (point,) in found.curves.items():
        small = prune(model, plan(graph, {layer: 0.5}))
        assert point.value == pytest.approx(by_itself(small, data), rel=1e-9)


class CutOffError(Exception):
    pass


def interrupted(data, after):
    for place, batch in enumerate(data):
        if place == after:
            raise CutOffError
        yield batch


def test_a_scan_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    model, data = strategies.OneNumber().double().eval(), batches(4)
    graph = fw.trace(model, (data[0][0],))
    whole = scan(graph, model, data, near, ratios=RATIOS)
    path = tmp_path / "sens.json"
    with pytest.raises(CutOffError):
        scan(graph, model, interrupted(data, 2), near, ratios=RATIOS, save_to=path)
    assert not path.exists()
    parts = tmp_path / "sens.json.parts"
    assert len(list(parts.glob("batch-*"))) == 2
    changed = data[1][1].clone()
    with pytest.raises(DataError, match="another batch number 1"):
        scan(graph, model, [(changed.expand(2, 3), changed), *data[1:]], near, ratios=RATIOS, save_to=path)  # fmt: skip  # noqa: E501
    with pytest.raises(DataError, match="the settings that it began with"):
        scan(graph, model, data, near, ratios=(0.5,), save_to=path)
    seen = []

    def watched(outputs, batch):
        seen.append(len(batch[0]))
        return near(outputs, batch)

    again = scan(graph, model, data, watched, ratios=RATIOS, save_to=path)
    assert again.curves == whole.curves
    assert again.baseline == whole.baseline
    cuts = sum(map(len, whole.curves.values())) + 1
    assert len(seen) == 2 * cuts
    assert not parts.exists()
    assert json.loads(path.read_text())["metric"] == "mean"


def test_a_detector_by_its_task():
    torch.manual_seed(0)
    name, settings = load_config("digit_detector", ["data.val_count=3"])
    model = fw.load(shipped_network(name, settings))
    images, preprocessing = open_set(settings.data, "val"), settings.preprocessing
    loader = val_loader(images, preprocessing=preprocessing, batch_size=2)
    spec = spec_of("yolov3_mobilenet_v1")
    task = task_for(spec.task, spec.geometry, images.labels, TaskConfig())
    graph = fw.trace(model, (torch.rand(1, 3, 160, 160),))
    names = ["yolo_block.0.0.0.conv.weight", "yolo_block.2.tip.conv.weight"]
    found = scan(graph, model, loader, task, ratios=(0.5,), layers=names, local=True)
    assert found.metric == "map_50"
    assert found.baseline > 0.5
    assert list(found.curves) == names
    for name in names:
        small = prune(model, plan(graph, {name: 0.5}, local=True))
        numbers = evaluate(small, task, loader)
        assert found.curves[name][0].value == pytest.approx(numbers["map_50"], abs=1e-9)


def test_a_network_that_finds_nothing_is_refused_before_any_cut_is_measured(tmp_path):
    model, data = strategies.OneNumber().double().eval(), batches(6)
    graph, calls = fw.trace(model, (data[0][0],)), []

    def nothing(outputs, batch):
        calls.append(batch)
        return torch.zeros(len(outputs))

    path = tmp_path / "sens.json"
    with pytest.raises(DataError, match="Received mean 0. Train it first".replace(".", r"\.")):
        scan(graph, model, data, nothing, ratios=RATIOS, save_to=path)
    assert len(calls) == len(data)
    assert not list(path.parent.glob("*.json"))
    with pytest.raises(DataError, match="must be above 0"):
        scan(graph, model, iter(data), nothing, ratios=RATIOS)


def test_nothing_to_do_is_a_mistake():
    model, data = strategies.OneNumber().double().eval(), batches()
    graph = fw.trace(model, (data[0][0],))
    with pytest.raises(DataError, match="Received no batch"):
        scan(graph, model, [], near, ratios=RATIOS)
    with pytest.raises(PlanError, match="remove no channel"):
        scan(graph, model, data, near, ratios=(0.01,))
