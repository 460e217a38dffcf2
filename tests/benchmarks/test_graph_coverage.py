"""The coverage benchmark tells right from wrong, whatever a network does to its process."""

import csv
import importlib
import os
import time
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from torch import nn

import flyweight
from flyweight.errors import GraphError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("graph_coverage")


@pytest.fixture
def models(bench: ModuleType) -> ModuleType:
    return importlib.import_module("coverage_models")


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()
    )


class Endless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.is_meta:
            time.process_time()
        return self.layer(x)


def failing() -> nn.Module:
    raise OSError("no weights")


def dying() -> nn.Module:
    os._exit(3)


def run(bench: ModuleType, path: Path, build, **options) -> dict[str, str]:
    case = bench.Case("zoo", "net", build, (2, 3, 8, 8), classes=4)
    facts = {"commit": "abc", "hardware": "here"}
    settings = bench.Settings(options.get("limit", 20), 2**34, (), facts)
    (row,) = bench.run([(case, options.get("tool", "flyweight"))], settings, path)
    (kept,) = bench.read_rows(path, bench.COLUMNS)
    assert {name: row.get(name, "") for name in bench.COLUMNS} == kept
    return kept


def test_a_network_that_is_cut_right_is_ok(bench: ModuleType, tmp_path: Path) -> None:
    row = run(bench, tmp_path / "rows.csv", network)
    assert (row["status"], row["reason"], row["precision"]) == ("ok", "", "float64")
    assert (row["groups"], row["prunable"], row["mixed"]) == ("2", "1", "0")
    assert row["frozen"] == "1x is an output of the model"
    dense = network()
    assert int(row["params_before"]) == sum(value.numel() for value in dense.parameters())
    assert int(row["params_after_exact"]) == (3 * 9 + 1) * 4 + 2 * 4 + (4 + 1) * 4
    assert row["params_after_inexact"] == row["params_after_exact"]
    assert float(row["max_error"]) < 1e-12
    assert all(0 <= float(row[f"{step}_seconds"]) < 9 for step in ("trace", "plan", "prune"))
    assert (row["commit"], row["hardware"]) == ("abc", "here")


def test_a_wrong_result_is_found(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = flyweight.prune

    def damaged(model, plan, *, verify):
        small = prune(model, plan, verify=verify)
        with torch.no_grad():
            small[0].weight.copy_(small[0].weight.flip(0))
        return small

    monkeypatch.setattr(flyweight, "prune", damaged)
    row = run(bench, tmp_path / "rows.csv", network)
    assert row["status"] == "wrong"
    assert float(row["max_error"]) > 1e-3


def test_a_result_that_does_not_run_is_found(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flyweight, "prune", lambda model, plan, *, verify: nn.Linear(2, 2))
    row = run(bench, tmp_path / "rows.csv", network)
    assert row["status"] == "crashed"
    assert row["reason"].startswith("compare: RuntimeError: mat1 and mat2")


def test_a_comparison_that_shows_nothing_is_no_proof(bench: ModuleType, tmp_path: Path) -> None:
    def blind() -> nn.Module:
        model = network()
        model.append(nn.Threshold(1e9, 1.0))
        return model

    row = run(bench, tmp_path / "rows.csv", blind)
    assert row["status"] == "wrong"
    assert "no effect" in row["reason"]


def test_a_letter_is_a_refusal(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(model, args):
        raise GraphError("The model must\nrun." + 200 * "x")

    monkeypatch.setattr(flyweight, "trace", refusing)
    row = run(bench, tmp_path / "rows.csv", network)
    assert row["status"] == "refused"
    assert row["reason"].startswith("trace: The model must run.xx")
    assert len(row["reason"]) == 160


@pytest.mark.parametrize(
    ("build", "status", "reason"),
    [
        (Endless, "timeout", "trace: more than 1 CPU seconds"),
        (failing, "not-built", "build: OSError: no weights"),
        (dying, "crashed", "build: died with 3"),
        (
            lambda: nn.Conv2d(3, 4, 1),
            "refused",
            "no cut: 100.0 % of the parameters stay; 1x is an output of the model",
        ),
    ],
)
def test_every_end_leaves_its_row(
    bench: ModuleType, tmp_path: Path, build, status: str, reason: str
) -> None:
    row = run(bench, tmp_path / "rows.csv", build, limit=1)
    assert (row["status"], row["reason"]) == (status, reason)


def test_torch_pruning_is_told_the_outputs(bench: ModuleType, tmp_path: Path) -> None:
    row = run(bench, tmp_path / "rows.csv", network, tool="torch-pruning")
    assert (row["tool"], row["status"], row["reason"]) == ("torch-pruning", "ok", "")
    assert int(row["params_after_exact"]) == (3 * 9 + 1) * 4 + 2 * 4 + (4 + 1) * 4


def test_a_run_goes_on_where_it_was_left(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    names = ["one", "two"]
    cases = [bench.Case("zoo", name, network, (1, 3, 8, 8), classes=4) for name in names]
    monkeypatch.setattr(bench, "cases_of", lambda suite: cases)
    monkeypatch.setattr(bench, "commit", lambda _: "abc")
    target = ["--suite", "zoo", "--no-export", "--results", str(tmp_path / "rows.csv")]
    assert bench.main([*target, "--only", "one"]) == 0
    assert "1 of 1 to run" in capsys.readouterr().out
    assert bench.main([*target, "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 to run" in out
    assert "zoo, flyweight: 2 models; 2 ok" in out
    monkeypatch.setattr(bench, "commit", lambda _: "abd")
    assert bench.main([*target, "--only", "two"]) == 0
    assert "1 of 1 to run" in capsys.readouterr().out
    assert bench.main([*target, "--only", "two", "--fresh"]) == 0
    assert "1 of 1 to run" in capsys.readouterr().out
    rows = bench.read_rows(tmp_path / "rows.csv", bench.COLUMNS)
    assert [(row["model"], row["commit"]) for row in rows] == [("one", "abc"), ("two", "abd")]
    with pytest.raises(SystemExit, match="three"):
        bench.main([*target, "--only", "three"])


def test_nothing_hides_behind_a_constant(models: ModuleType) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(network()[0], nn.BatchNorm2d(8), nn.Flatten(), nn.LayerNorm(288))
    model.register_parameter("scale", nn.Parameter(torch.zeros(8, 1, 1)))
    nn.init.zeros_(model[0].weight)
    model.eval()
    image = torch.randn(4, 3, 8, 8) + 3
    models.randomise(model, (image,))
    for name, value in model.named_parameters():
        assert float(value.detach().std()) > 0.01, name
    with torch.no_grad():
        made = model[1](model[0](image))
        spread = (made - model[1].bias[:, None, None]) / model[1].weight[:, None, None]
    assert 0.5 < float(spread.std()) < 2
    assert 0.05 < float(spread.mean((0, 2, 3)).abs().max()) < 2


def test_the_outputs_of_a_detector_are_found(models: ModuleType) -> None:
    cases = {case.name: case for case in models.cases_of("torchvision-detection")}
    assert len(cases) == 14
    case = cases["retinanet_resnet50_fpn+frozenbn"]
    model = case.build()
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    heads = [layer.out_channels for layer in case.output_layers(model)]
    assert heads == [9 * 91, 9 * 4]


def test_the_suites_are_whole(models: ModuleType) -> None:
    counts = {suite: len(models.cases_of(suite)) for suite in models.SUITES}
    assert counts["torchvision-classification"] == 80
    assert counts["torchvision-segmentation"] == 6
    assert counts["timm"] > 200


def test_the_timm_list_has_every_module(models: ModuleType) -> None:
    lines = [line.split() for line in models.TIMM_MODELS.read_text().splitlines()[1:]]
    assert {module for module, _, _ in lines} >= set(timm.models.list_modules())
    assert all(timm.is_model(name) for _, name, _ in lines)
    assert len({name for _, name, _ in lines}) == len(lines)
    chooser = importlib.import_module("coverage_timm")
    assert chooser.family("resnet10t") == "resnet"
    assert chooser.family("tf_efficientnet_b0") == "efficientnet"
    assert chooser.smallest(["resnet50", "resnet18", "resnet34"]) == "resnet18"
    assert chooser.smallest_side("resnet10t") == 64


def test_the_table_is_made_of_the_rows(bench: ModuleType, tmp_path: Path) -> None:
    table = importlib.import_module("coverage_table")
    tables = importlib.import_module("tables")
    shared = {"suite": "timm", "commit": "abcdef" * 7, "hardware": "here", "date": "2026-01-02"}
    ours = shared | {"tool": "flyweight", "status": "ok", "params_before": "100"}
    theirs = ours | {"tool": "torch-pruning"}
    rows = [
        ours
        | {"model": "a", "params_after_inexact": "30", "trace_seconds": "1.5"}
        | {"exports": "torch + onnx"},
        ours
        | {"model": "b", "params_after_inexact": "20", "prune_seconds": "0.25"}
        | {"exports": "torch + not onnx, nor dense"},
        theirs | {"model": "a", "params_after_inexact": "40", "trace_seconds": "2"},
        theirs | {"model": "b", "status": "timeout"},
    ]
    with (tmp_path / "graph_coverage.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table.COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    page = "<!-- table: graph_coverage -->\nold\n<!-- end -->\n"
    text = tables.filled(page, tmp_path)
    assert tables.filled(text, tmp_path) == text
    line = next(line for line in text.splitlines() if line.startswith("| timm"))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells == ["2", "**2** / 1", "**25 %** / 40 %", "**1.5** / 2.0, 1 unfinished"]
    assert "flyweight on 2: 2 ok" in text
    assert "`torch.export`: 2 of 2 tried; exported with ONNX: 1 of 2 tried" in text
    assert "fail unpruned, too: 1" in text
    assert "abcdefabcdef;" in text
    assert tables.filled(page, tmp_path / "none") == page.replace("old\n", "")
