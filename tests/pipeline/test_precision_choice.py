"""Choices on a machine that is made up: the times of every layer are known."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.measuring.conftest import invent
from torch import nn

import flyweight as fw
from flyweight.config.budget import Budget
from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import PlanError
from flyweight.measuring.times_by_layer import TimesByLayer
from flyweight.pipeline import precision_choice
from flyweight.pipeline.precision_choice import Subject, choose
from flyweight.progress import Progress
from flyweight.quantization.network import plan_of

NAMES = ("0.conv2d", "2.conv2d", "4.conv2d")


class Notes(Progress):
    """Keeps messages."""

    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)


class Machine:
    """A runtime on which layers take given times: (float ms, integer ms) each.

    Attributes:
        conversion_ms: Between two layers of different precision.
        surprise_ms: What every file with integers takes more than its layers.
        bfloat16: What float operations take in that precision, as a share.
        exported: Integer layers of every file by its name.
        tolerances: Of the comparisons of the files with PyTorch.
    """

    def __init__(self, layers, conversion_ms=0.0, surprise_ms=0.0, bfloat16=None):
        self.layers = dict(zip(NAMES, layers, strict=True))
        self.conversion_ms, self.surprise_ms = conversion_ms, surprise_ms
        self.bfloat16, self.exported, self.tolerances = bfloat16, {}, set()

    def to_onnx(self, model, path, *, config, **_):
        self.tolerances.add(config.tolerance)
        plan = plan_of(model)
        layers = () if plan is None else [one.operation for one in plan.layers.values()]
        self.exported[Path(path).name] = frozenset(layers)
        Path(path).touch()

    def time_layers(self, path, names, *, runtime):
        integer = self.exported[path.name]
        times = {name: self.layers[name][name in integer] for name in NAMES}
        reasons = {name: "" for name in NAMES if name not in integer}
        return TimesByLayer(times, integer, reasons, self._conversions(integer), {})

    def _conversions(self, integer):
        changes = sum((a in integer) != (b in integer) for a, b in pairwise(NAMES))
        return self.conversion_ms * changes

    def measure(self, files, *, precisions, **_):
        rows = []
        for seed, (path, precision) in enumerate(zip(files, precisions, strict=True)):
            integer = self.exported[path.name]
            share = 1 if precision == "float32" else self.bfloat16
            floats = sum(self.layers[name][0] for name in NAMES if name not in integer)
            integers = sum(self.layers[name][1] for name in integer)
            ms = share * floats + integers + self._conversions(integer)
            ms += self.surprise_ms if integer else 0
            rows.append(replace(invent(path.name, ms, seed=seed), precision=precision))
        return tuple(rows)

    def precisions(self):
        return ("float32",) if self.bfloat16 is None else ("float32", "bfloat16")


def chosen(monkeypatch, tmp_path, machine, budget=None, runtime="onnxruntime"):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    model, images = nn.Sequential(*layers).eval(), torch.randn(2, 3, 8, 8)
    for name in ("to_onnx", "time_layers", "measure"):
        monkeypatch.setattr(precision_choice, name, getattr(machine, name))
    monkeypatch.setattr(precision_choice, "runtime_by_name", lambda name: machine)
    monkeypatch.setattr(precision_choice, "installed_version", lambda name: f"{name} 1")

    def quantized(floats):
        return fw.quantize(model, images, fw.QuantConfig(floats=floats))

    tmp_path.mkdir(exist_ok=True)
    subject = Subject(model, model, quantized, images, Preprocessing(height=8, width=8), runtime)
    notes = Notes()
    found = choose(subject, budget, tmp_path, notes)
    return found, notes.lines


def integer_layers(choice):
    plan = None if choice.model is None else plan_of(choice.model)
    return () if plan is None else tuple(one.operation for one in plan.layers.values())


def test_every_layer_that_is_faster_runs_on_integers(monkeypatch, tmp_path):
    machine = Machine([(2, 1), (1, 3), (2, 1)])
    found, _ = chosen(monkeypatch, tmp_path, machine)
    assert integer_layers(found) == found.plan.integer == ("0.conv2d", "4.conv2d")
    assert found.latency.precision == "mixed"
    assert found.latency.ratio == pytest.approx(5 / 3, rel=0.02)
    assert plan_of(found.model).floats == found.plan.floats
    assert "1.000 ms in float, 3.000 ms on integers" in found.plan.floats["2.conv2d"]
    assert found.record.floats == found.plan.floats
    assert [one.precision for one in found.measured] == ["float", "mixed", "int8"]


def test_files_that_are_only_timed_may_differ_from_pytorch(monkeypatch, tmp_path):
    machine = Machine([(10.0, 4.0), (10.0, 4.0), (10.0, 4.0)])
    chosen(monkeypatch, tmp_path, machine)
    assert machine.tolerances == {math.inf}


def test_losses_that_cannot_be_measured_stop_only_a_budget(monkeypatch, tmp_path):
    def refused(*_):
        raise PlanError("runs as a scaled ReLU")

    monkeypatch.setattr(precision_choice, "layer_losses", refused)
    machine = Machine([(2, 1), (1, 3), (2, 1)])
    found, lines = chosen(monkeypatch, tmp_path, machine)
    assert integer_layers(found) == ("0.conv2d", "4.conv2d")
    assert "note: layers are chosen by their times alone: runs as a scaled ReLU" in lines
    with pytest.raises(PlanError, match="scaled ReLU"):
        chosen(monkeypatch, tmp_path / "other", machine, Budget(latency_share=0.9))


def test_conversions_are_priced_by_the_mixed_file(monkeypatch, tmp_path):
    found, _ = chosen(monkeypatch, tmp_path, Machine([(2, 1), (1, 1.5), (2, 1)], 0.5))
    assert integer_layers(found) == NAMES
    assert found.latency.precision == "int8"


def test_a_network_that_is_slower_on_integers_stays_float(monkeypatch, tmp_path):
    found, lines = chosen(monkeypatch, tmp_path, Machine([(1, 2)] * 3))
    assert found.model is None
    assert found.latency.is_reference
    assert lines[-1].startswith("float: no choice of integer layers is faster in ONNX Runtime")
    assert "the fastest has 0.50 times the speed of float" in lines[-1]
    reason = found.plan.floats["0.conv2d"]
    assert reason.startswith("no choice is faster than float; the fastest has 0.50 times")


def test_a_prediction_that_the_measurement_refutes_is_not_chosen(monkeypatch, tmp_path):
    found, lines = chosen(monkeypatch, tmp_path, Machine([(2, 1)] * 3, surprise_ms=4))
    assert found.model is None
    assert "predicted: 3.000 ms with 3 of 3 layers on integers, 6.000 ms in float" in lines
    assert "0.86 times the speed" in lines[-1]


def test_a_difference_that_chance_makes_is_none(monkeypatch, tmp_path):
    found, _ = chosen(monkeypatch, tmp_path, Machine([(1, 0.99)] * 3))
    assert found.model is None


def test_a_budget_is_met_with_few_integer_layers(monkeypatch, tmp_path):
    machine = Machine([(2, 1), (2, 1), (2, 1)])
    found, _ = chosen(monkeypatch, tmp_path, machine, Budget(latency_share=0.7))
    assert len(integer_layers(found)) == 2
    assert 1 / found.latency.ratio <= 0.7
    found, _ = chosen(monkeypatch, tmp_path / "ms", machine, Budget(latency_ms=5.1))
    assert len(integer_layers(found)) == 1
    assert found.latency.chosen_ms <= 5.1


def test_a_budget_that_is_missed_when_measured_is_tightened(monkeypatch, tmp_path):
    machine = Machine([(2, 1), (2, 1), (2, 1)], surprise_ms=0.5)
    found, lines = chosen(monkeypatch, tmp_path, machine, Budget(latency_share=0.84))
    assert len(integer_layers(found)) == 2
    assert sum(line.startswith("predicted") for line in lines) == 2


def test_float_meets_a_budget_that_it_is_within(monkeypatch, tmp_path):
    found, _ = chosen(monkeypatch, tmp_path, Machine([(2, 1)] * 3), Budget(latency_ms=7))
    assert found.model is None
    assert found.plan.integer == ()


def test_a_budget_that_cannot_be_met_states_what_was_measured(monkeypatch, tmp_path):
    with pytest.raises(PlanError, match=r"latency_share=0\.25; .* a share of 0\.50"):
        chosen(monkeypatch, tmp_path, Machine([(2, 1)] * 3), Budget(latency_share=0.25))


def test_bfloat16_is_chosen_where_the_processor_has_it_and_it_is_faster(monkeypatch, tmp_path):
    machine = Machine([(1, 2)] * 3, bfloat16=0.5)
    found, _ = chosen(monkeypatch, tmp_path, machine, runtime="openvino")
    assert found.model is None
    assert (found.latency.precision, found.latency.inference) == ("float", "bfloat16")
    assert not found.latency.is_reference
    machine = Machine([(2, 1), (1, 3), (2, 1)], bfloat16=0.9)
    found, _ = chosen(monkeypatch, tmp_path / "mixed", machine, runtime="openvino")
    assert integer_layers(found) == ("0.conv2d", "4.conv2d")
    assert found.latency.inference == "bfloat16"


def test_bfloat16_that_the_processor_lacks_is_said(monkeypatch, tmp_path):
    machine = Machine([(2, 1)] * 3)
    _, lines = chosen(monkeypatch, tmp_path, machine, runtime="openvino")
    assert "bfloat16 is not tried: this processor has no instructions for it" in lines
