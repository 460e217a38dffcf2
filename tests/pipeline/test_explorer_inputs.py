from datetime import UTC, datetime

import pytest
import torch

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.pipeline.explorer_inputs import ConfigSource, cutting_of, with_explorer
from flyweight.report import quantities
from flyweight.report.rows import Report, Row
from flyweight.sensitivity import Point, Sensitivity

NAME = "yolo_block.0.0.0.conv.weights"
TINY = ("width=0.1", "input_size=64")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = fw.create("yolov3_mobilenet_v1", num_classes=10, width=0.1)
    labels = tuple(map(str, range(10)))
    size = {"height": 64, "width": 64}
    path = tmp_path / "dense" / "best_model.safetensors"
    fw.save(model, path, task="detect", labels=labels, preprocessing=size)
    return tmp_path


def curves(criterion="l1_norm", **made_from):
    points = (Point(0.25, 0.7), Point(0.5, 0.6))
    return Sensitivity("map", 0.8, {NAME: points}, criterion, local=True, made_from=made_from)


def report(command):
    rows = (Row(stage="dense", quantities={"m": quantities.metric("mAP", 0.8, method="all")}),)
    now = datetime.now(UTC)
    return Report(title="t", subject="s", created=now, command=command, environment={}, rows=rows)


def test_the_command_names_all_that_the_cut_depends_on(folder):
    graph = fw.trace(fw.create("yolov3_mobilenet_v1", num_classes=10, width=0.1).eval(), (torch.zeros(1, 3, 64, 64),))  # fmt: skip  # noqa: E501
    told = ConfigSource("demo_digits", (*TINY, "weights=old"))
    config = load_config("demo_digits", [*TINY, "prune.round_to=4"])[1]
    files = (folder / "w.safetensors", folder / "my curves.json")
    made = cutting_of(told, config, curves(), files, graph)
    assert made.round_to == 4
    assert not made.inexact
    common = f"flyweight prune -c demo_digits -o width=0.1 -o input_size=64 -o weights={files[0]}"
    assert made.ratios_command == common
    assert made.command == f"{common} --sensitivities '{files[1]}'"
    other = cutting_of(told, config, curves("l2_norm"), files, graph)
    assert other.ratios_command == f"{common} --prune-criterion l2_norm"


def test_a_run_folder_with_a_scan_shows_it(folder):
    said = []
    plain = report("flyweight demo -o width=0.1 input_size=64 --output-dir out")
    assert with_explorer(plain, folder, say=said.append) == plain
    curves().save(folder / "sens.json")
    shown = with_explorer(plain, folder, say=said.append)
    assert [layer.name for layer in shown.explorer.layers] == [NAME]
    assert shown.explorer.command.startswith(
        "flyweight prune -c demo_digits -o width=0.1 -o input_size=64 -o weights="
    )
    assert shown.model_copy(update={"explorer": None}) == plain
    for command in ("python chain.py", "flyweight 'demo"):
        assert with_explorer(report(command), folder, say=said.append).explorer.command == ""
    named = with_explorer(report("flyweight demo -c bccd_no_such"), folder, say=said.append)
    assert named.explorer is None
    assert "is not shown: " in said[-1]
    assert len(said) == 5  # four times that nothing says what the scan was measured on


def test_a_scan_that_cannot_be_shown_is_named_and_left_out(folder):
    said = []
    (folder / "sens.json").write_text("{")
    found = with_explorer(report("flyweight demo"), folder, say=said.append)
    assert found.explorer is None
    assert "sens.json' is not shown: A sensitivity file must be" in said[0]


def test_a_demo_without_a_named_config_is_that_of_the_reports_subject(folder):
    curves().save(folder / "sens.json")
    plain = report("flyweight demo -o width=0.1 input_size=64")
    for subject, config in (("digit_detector", "digit_detector"), ("s", "demo_digits")):
        named = plain.model_copy(update={"subject": subject})
        shown = with_explorer(named, folder, say=lambda _: None)
        assert shown.explorer.command.startswith(f"flyweight prune -c {config} -o width=0.1 ")


def test_a_scan_of_something_else_is_named_and_the_next_one_is_shown(folder):
    said, plain = [], report("flyweight demo -c demo_digits -o width=0.1 input_size=64")
    curves(weights="0123").save(folder / "sens.json")
    assert with_explorer(plain, folder, say=said.append).explorer is None
    assert "sens.json' is not shown: A scan must be of the network" in said[0]
    assert "with other: weights (0123, here " in said[0]
    forced = with_explorer(plain, folder, foreign=True, say=said.append).explorer
    assert forced.command.endswith("--foreign-scan")
    assert "used all the same: weights" in said[1]
    curves().save(folder / "sens_2.json")
    assert with_explorer(plain, folder, say=said.append).explorer is not None
    known = with_explorer(plain, folder, data=lambda _: "e", say=said.append)
    assert known.explorer is not None
    curves(data="d").save(folder / "sens_2.json")
    assert with_explorer(plain, folder, data=lambda _: "e", say=said.append).explorer is None
    assert "with other: data (d, here e)" in said[-1]
