from types import SimpleNamespace

import pytest

from flyweight.config.cuts import RatioCut
from flyweight.config.reading import load_config
from flyweight.pipeline.build_report import (
    ReportedNetwork,
    ReportInputs,
    _compared,
    build_report,
)
from flyweight.pipeline.distillation_outcomes import UNTAUGHT
from flyweight.pipeline.inputs import Saver, open_data
from flyweight.pipeline.network_plans import build_model, plan_cut, trace_model
from flyweight.pipeline.report_outcomes import outcomes_of
from flyweight.pipeline.results import Compared, ComparedNetwork
from flyweight.progress import SILENT

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=2", "data.val_count=2")
CONFIG = load_config("demo_digits", SMALL)[1]
CUT = "yolo_block.0.0.0.conv.weight"


def measured(threads, median, note=()):
    environment = SimpleNamespace(cpu="a processor", runtimes={"onnxruntime": "1.31"})
    return SimpleNamespace(
        threads=threads,
        median_ms=median,
        interval_ms=(median, median + 1),
        peak_bytes=1000 * threads,
        runtime="onnxruntime",
        notes=note,
        waited=False,
        environment=environment,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for name, metrics in (("dense", {"map_50": 0.8}), ("pruned", {"map_50": 0.7})):
        Saver(CONFIG, tuple("0123456789"), "detect")(
            build_model(CONFIG), metrics, folder / name / "best_model.safetensors"
        )
        (folder / f"{name}.onnx").write_bytes(b"onnx")
    logs = folder / "dense/logs"
    logs.mkdir()
    (logs / "train.csv").write_text("step,loss\n1,3.5\n2,\n3,2.5\n")
    (logs / "metrics.csv").write_text("step,map_50\n3,0.8\n")
    return folder


@pytest.fixture(scope="module")
def report(folder):
    graph = trace_model(build_model(CONFIG), CONFIG.preprocessing)
    rows = {
        "dense": (measured(1, 10.0, ["busy"]), measured(2, 6.0)),
        "pruned": (measured(1, 5.0, ["busy"]), measured(2, 3.0)),
    }
    stages = tuple(
        ReportedNetwork(
            name, folder / name / "best_model.safetensors", folder / f"{name}.onnx", found
        )
        for name, found in rows.items()
    )
    plan = plan_cut(graph, RatioCut((CUT,), (0.5,)))
    return build_report(
        ReportInputs("digits", CONFIG, open_data(CONFIG), folder, plan, graph, stages)
    )


def test_numbers_of_both_stages(report):
    assert report.stages == ("dense", "pruned")
    dense, pruned = (row.quantities for row in report.rows)
    assert (dense["metric"].value, pruned["metric"].value) == (0.8, 0.7)
    assert dense["macs"].value > pruned["macs"].value
    assert dense["file_size"].value == 4
    assert [dense[f"latency_{count}"].name for count in (1, 2)] == [
        "Latency, 1 thread",
        "Latency, 2 threads",
    ]
    assert (pruned["latency_2"].low, pruned["latency_2"].high) == (3.0, 4.0)
    assert dense["memory"].value == 1000
    assert report.environment["onnxruntime"] == "1.31"
    assert report.notes.count("busy") == 1
    assert "2 images of" in dense["metric"].method


def test_widths_of_all_layers_in_their_order(report):
    names = [width.name for width in report.widths]
    assert names[0] == "backbone.conv1.conv.weight"
    assert names.index(CUT) < names.index("yolo_block.2.tip.conv.weight")
    narrowed = {width.name: (width.before, width.after) for width in report.widths}
    assert narrowed.pop(CUT) == (48, 24)
    assert all(before == after for before, after in narrowed.values())


def test_curves_of_what_was_logged(report):
    assert [(curve.series, curve.x, curve.y) for curve in report.curves] == [
        ("dense", (1.0, 3.0), (3.5, 2.5)),
        ("dense", (3.0,), (0.8,)),
    ]


def test_pictures_of_both_stages(report, folder):
    assert [image.stage for image in report.images] == ["ground truth", "dense", "pruned"] * 2
    assert all((folder / image.path).is_file() for image in report.images)
    found = [image.caption for image in report.images if image.stage != "ground truth"]
    # Networks without training find nothing at this score, so the caption says how close they are.
    start = "0 objects above a score of 0.4; "
    assert all(caption.startswith(start) for caption in found)


def test_compared_networks_are_rows(folder, report):
    compared = Compared(
        (
            ComparedNetwork("dense", "dense", 0.8),
            ComparedNetwork("dense, again", "dense", 0.81, (-0.01, 0.02)),
            ComparedNetwork("pruned", "pruned", 0.7, (-0.15, -0.05)),
        )
    )
    rows = tuple(_compared(compared, report.rows))
    assert [row.stage for row in rows] == ["dense", "dense, again", "pruned"]
    dense, again, pruned = (row.quantities for row in rows)
    assert dense == report.rows[0].quantities
    assert set(again) == {"metric", "macs", "parameters"}
    assert again["macs"] == dense["macs"]
    assert (again["metric"].value, again["metric"].difference) == (0.81, (-0.01, 0.02))
    assert pruned["latency_1"] == report.rows[1].quantities["latency_1"]
    assert pruned["metric"].difference == (-0.15, -0.05)


def test_a_distillation_is_shown_beside_the_student_before_it(folder, report):
    graph = trace_model(build_model(CONFIG), CONFIG.preprocessing)
    paths = {name: folder / name / "best_model.safetensors" for name in ("dense", "pruned")}
    networks = tuple(
        ReportedNetwork(name, path, folder / f"{name}.onnx", (measured(1, 5.0),))
        for name, path in paths.items()
    )
    data = open_data(CONFIG)
    shown = {"dense": paths["dense"], UNTAUGHT: paths["pruned"], "pruned": paths["pruned"]}
    outcomes = {
        name: outcomes_of(path, CONFIG, data.val, name=name, progress=SILENT)
        for name, path in shown.items()
    }
    plan = plan_cut(graph, RatioCut((CUT,), (0.5,)))
    found = build_report(
        ReportInputs(
            "tiny", CONFIG, data, folder, plan, graph, networks, None, outcomes, paths["pruned"]
        )
    )
    assert found.stages == ("dense", "pruned")
    assert found.class_results.stages == ("dense", UNTAUGHT, "pruned")
    assert [one.stage for one in found.images[:4]] == ["ground truth", "dense", UNTAUGHT, "pruned"]
    assert found.notes[0] == "Classes that the cut lowered: 0; raised by distillation: 0."
