import copy
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests import strategies
from torch import nn

from flyweight.graph import trace
from flyweight.origin import Origin, note_origin, origin_of
from flyweight.pruning import plan, prune
from flyweight.pruning.repair.least_squares import reconstruct
from flyweight.pruning.repair.repair import (
    RepairReport,
    RepairSettings,
    RepairStep,
    output_error,
    repair,
    repair_,
)


class Separable(nn.Module):
    """Depthwise and pointwise layers, a residual, and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem, self.start = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.each = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm, self.point = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 1, bias=False)
        self.last, self.head = nn.BatchNorm2d(12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.start(self.stem(x)).relu()
        x = x + self.last(self.point(self.norm(self.each(x)).relu()))
        return self.head(x.relu().mean((2, 3)))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(16, 3, 8, 8) for _ in range(4)]


@pytest.fixture
def dense(batches):
    torch.manual_seed(0)
    model = Separable()
    torch.optim.swa_utils.update_bn(batches, model)
    return model.eval()


@pytest.fixture
def made(dense, batches):
    return plan(trace(dense, (batches[0],)), 0.34)


def nearness(dense, batches):
    return lambda model: 1 - output_error(dense, model, batches)


def test_every_step_and_what_it_brings_back(dense, made, batches, recorded_progress):
    small = prune(dense, made)
    metric = nearness(dense, batches)
    every = RepairSettings(norms=True)
    report = repair_(dense, small, made, batches, every, metric=metric, progress=recorded_progress)
    assert [step.name for step in report.steps] == ["cut", "constants", "norms", "least squares"]
    assert report.dense_metric == 1.0
    assert report.steps[0].metric == pytest.approx(metric(prune(dense, made)))
    assert report.steps[-1].metric == pytest.approx(metric(small))
    assert report.steps[-1].error == pytest.approx(output_error(dense, small, batches[-1:]))
    assert report.steps[-1].error < 0.7 * report.steps[0].error
    assert report.brought_back() > 0.3
    assert report.brought_back(report.steps[0]) == 0
    assert report.seconds == pytest.approx(sum(step.seconds for step in report.steps))
    assert "of the loss brought back" in str(report)
    assert recorded_progress.notes == ["constants", "norms"]
    count = recorded_progress.events[2][2]
    assert recorded_progress.events[2] == ("start", "least squares", count, 0)
    assert recorded_progress.events[-2] == ("update", "least squares", count, {})


def test_the_copy_is_repaired_and_nothing_else(dense, made, batches):
    note_origin(dense, Origin("somewhere"))
    small = prune(dense, made)
    note, before = origin_of(small), copy.deepcopy(small.state_dict())
    whole = copy.deepcopy(dense.state_dict())
    images = [batch.clone() for batch in batches]
    repaired, report = repair(dense, small, made, batches, RepairSettings(norms=True))
    assert report.dense_metric is None
    assert report.brought_back() is None
    assert str(report).startswith("output error: cut ")
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(torch.equal(value, whole[name]) for name, value in dense.state_dict().items())
    assert all(torch.equal(one, two) for one, two in zip(images, batches, strict=True))
    changed = {
        name for name, v in repaired.state_dict().items() if not torch.equal(v, before[name])
    }
    assert {"point.weight", "head.weight", "last.running_var"} <= changed
    assert not {"stem.weight", "start.running_mean", "each.weight"} & changed
    # The copy also notes that it was repaired, with what each step reached.
    after = origin_of(repaired)
    assert (after.before_last("repair"), origin_of(small)) == (note, note)
    assert [one.kind for one in after.transforms] == ["prune", "repair"]
    steps = after.transforms[-1].data["steps"]
    assert [step["name"] for step in steps] == ["cut", "constants", "norms", "least squares"]
    assert steps[0]["error"] == report.steps[0].error
    assert {name: v.shape for name, v in repaired.state_dict().items()} == {
        name: v.shape for name, v in before.items()
    }
    assert all(parameter.requires_grad for parameter in repaired.parameters())
    repaired.train()(batches[0]).sum().backward()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (RepairSettings(norms=True, constants=None, reconstruct=False), ["cut", "norms"]),
        (RepairSettings(), ["cut", "constants", "least squares"]),
        (RepairSettings(reconstruct=False), ["cut", "constants"]),
        (RepairSettings(constants=None), ["cut", "least squares"]),
        (RepairSettings(constants=None, reconstruct=False), ["cut"]),
    ],
)
def test_steps_can_be_left_out(dense, made, batches, settings, names):
    report = repair_(dense, prune(dense, made), made, batches, settings)
    assert [step.name for step in report.steps] == names


def test_every_step_helps_alone(dense, made, batches):
    for settings in (
        RepairSettings(reconstruct=False, constants="mean"),
        RepairSettings(constants=None),
    ):
        report = repair_(dense, prune(dense, made), made, batches, settings)
        assert report.steps[1].error < report.steps[0].error


def test_held_out_batches_are_not_fitted_on(dense, made, batches):
    one, two = prune(dense, made), prune(dense, made)
    repair_(dense, one, made, batches[:3], RepairSettings(held_out=1))
    repair_(dense, two, made, [*batches[:2], batches[3]], RepairSettings(held_out=1))
    assert torch.equal(one.head.weight, two.head.weight)
    repair_(dense, three := prune(dense, made), made, batches[:3], RepairSettings(held_out=0))
    assert not torch.equal(one.head.weight, three.head.weight)
    repair_(dense, prune(dense, made), made, batches[:1], RepairSettings(held_out=5))


def test_without_pictures_nothing_is_done(dense, made):
    small = prune(dense, made)
    report = repair_(dense, small, made, [])
    assert [step.name for step in report.steps] == ["cut"]


def test_models_of_several_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, left, right):
            return {"answer": self.head(self.one(left).tanh() * self.two(right).tanh())}

    torch.manual_seed(0)
    model = Two()
    batches = [(torch.randn(32, 4), torch.randn(32, 3)) for _ in range(3)]
    made = plan(trace(model, batches[0]), {"one.weight": 0.5})
    report = repair_(model, prune(model, made), made, batches)
    assert report.steps[-1].error < report.steps[0].error


def test_output_error():
    double, zero = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    nn.init.eye_(double.weight)
    nn.init.zeros_(zero.weight)
    batches = [torch.randn(3, 2), torch.randn(1, 2)]
    assert output_error(double, double, batches) == 0
    assert output_error(double, zero, batches) == pytest.approx(1)
    assert output_error(zero, zero, batches) == 0
    assert output_error(zero, double, batches) == float("inf")


def test_the_line_that_sums_up():
    steps = (RepairStep("cut", 0.9, 0.31), RepairStep("norms", 0.5, 0.62, 2.0))
    report = RepairReport(0.98, (*steps, RepairStep("least squares", 0.1, 0.93, 9.0)))
    assert str(report) == (
        "dense 0.980, cut 0.310, + norms 0.620, + least squares 0.930: 93% of the loss brought "
        "back (11 s)"
    )
    assert RepairReport(0.31, steps).brought_back() is None


@pytest.mark.parametrize("kind", strategies.BUILDERS)
def test_every_kind_of_coupling_is_repaired(kind):
    model = strategies.build(["chain", kind, "chain"], 6)
    batches = [strategies.example(16) for _ in range(3)]
    graph = trace(model, batches[0])
    made = strategies.random_plan(graph, seed=3, every=True)
    small = prune(model, made)
    settings = RepairSettings(held_out=0, constants=None)
    report = repair_(model, small, made, batches, settings)
    assert report.steps[-1].error < report.steps[0].error
    twin = prune(model, made)
    for fit in reconstruct(model, twin, made, batches).layers:
        assert fit.after <= fit.before + 1e-9


ROOT = Path(__file__).resolve().parents[3]


def test_the_page_shows_the_measured_rows(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("repair")
    text = (ROOT / "docs" / "repair.md").read_text(encoding="utf-8")
    rows = bench.read_rows(bench.RESULTS, bench.COLUMNS)
    assert rows
    assert bench.filled(text, rows) == text, "run: python benchmarks/repair.py --table"


def test_the_page_shows_the_measured_norms(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("repair_norms")
    text = (ROOT / "docs" / "repair.md").read_text(encoding="utf-8")
    rows = bench.read_rows(bench.RESULTS, bench.COLUMNS)
    assert {row["network"] for row in rows} >= {"convnext", "vit"}
    assert bench.filled(text, rows) == text, "run: python benchmarks/repair_norms.py table"


class Mixed(nn.Module):
    """Residual blocks with a LayerNorm each; everything reads and writes the same channels."""

    def __init__(self):
        super().__init__()
        self.make = nn.Linear(6, 24)
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(3))
        self.blocks = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.last = nn.GroupNorm(2, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        x = self.make(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x)).relu()
        return self.head(self.last(x))


def test_an_inexact_cut_is_repaired_norm_by_norm():
    torch.manual_seed(0)
    model = Mixed().eval()
    rows = [torch.randn(64, 6) for _ in range(6)]
    made = plan(trace(model, (rows[0],)), 0.3, inexact=True)
    small = prune(model, made)
    repaired, report = repair(model, small, made, rows)
    names = [f"norms.{place}.weight" for place in range(3)] + ["last.weight"]
    first, last = report.steps[2], report.steps[3]
    assert (first.name, [fit.name for fit in first.norms]) == ("channel norms", names)
    assert (last.name, [fit.name for fit in last.norms]) == ("least squares", names)
    assert all(fit.after <= fit.before for fit in (*first.norms, *last.norms))
    # Nothing before the first norm can be refitted.
    pairs = [(one.after, two.after) for one, two in zip(first.norms, last.norms, strict=True)]
    assert all(after < before for before, after in pairs[1:])
    assert last.done.startswith("4 layers, 4 normalisations over channels, 0 of them exactly: mean")
    assert last.error < report.steps[0].error
    # One line of the whole, and one for each norm from the first residual to the last.
    line, *rest = str(report).splitlines()
    assert line.startswith("output error: cut ")
    assert [text.split("'")[1] for text in rest] == names
    assert rest[3] == f"  norm {replace(last.norms[3], before=first.norms[3].before, how='fitted')}"
    assert {n: t.shape for n, t in repaired.state_dict().items()} == {
        n: t.shape for n, t in small.state_dict().items()
    }
    _, report = repair(model, small, made, rows, RepairSettings(channel_norms=False))
    assert [step.name for step in report.steps] == ["cut", "constants", "least squares"]
    assert all(step.norms == () for step in report.steps)


def test_the_residual_of_a_norm_is_that_of_its_results():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.LayerNorm(24), nn.Linear(24, 4)).double().eval()
    rows = [torch.randn(50, 6, dtype=torch.float64) for _ in range(3)]
    made = plan(trace(model, (rows[0],)), 0.3, inexact=True)
    small = prune(model, made)
    alone = RepairSettings(reconstruct=False, constants=None)
    repaired, report = repair(model, small, made, rows, alone)
    (fit,) = report.steps[1].norms
    seen = torch.cat(rows[:2])
    for network in (model, repaired, small):
        network.requires_grad_(False)
    keep = list(next(iter(made.groups.values())).keep)
    wanted = model[:2](seen)[:, keep]
    for network, residual in ((small, fit.before), (repaired, fit.after)):
        gap = (network[:2](seen) - wanted).square().sum()
        share = gap / (wanted - wanted.mean(0)).square().sum()
        assert residual == pytest.approx(float(share), rel=1e-9)


class Keeping(Separable):
    """Keeps a table from its first forward."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None:
            self.table = x.new_ones(1)
        return super().forward(x) * self.table


def test_nothing_made_in_inference_mode_stays_in_the_networks(batches):
    torch.manual_seed(0)
    model = Keeping().train()
    made = plan(trace(model, (batches[0],)), 0.34)
    small = prune(model, made)
    repair_(model, small, made, batches, RepairSettings(norms=True, constants="mean"))
    for network in (model, small):
        assert network.table is None
        assert all(module.training for module in network.modules())
        network(batches[0]).sum().backward()
