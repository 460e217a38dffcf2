from datetime import UTC, datetime

import pytest
import torch

import flyweight as fw
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.data.loading import open_set
from flyweight.digests import digest_of_images
from flyweight.errors import DataError
from flyweight.pipeline.belonging import preprocessing_text
from flyweight.pipeline.explorer_inputs import (
    ConfigSource,
    cutting_of,
    recorded_data,
    with_explorer,
    with_explorer_of_folder,
    write_scan_page,
)
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.stages.scan import merge_scans
from flyweight.pipeline.stages.train import TRAIN
from flyweight.pipeline.version_0_1_0 import digest_of_images_0_1_0
from flyweight.progress import Silent
from flyweight.report import quantities
from flyweight.report.rows import Report, Row
from flyweight.sensitivity import Point, Sensitivity
from flyweight.workspace import MadeFrom

NAME = "yolo_block.0.0.0.conv.weights"
TINY = ("width=0.1", "input_size=64")


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


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


SMALL = (*TINY, "data.size=64", "data.train_count=2", "data.val_count=3", "train.num_workers=0")


def test_a_report_by_hand_compares_the_data_of_the_scan(folder):
    config = load_config("demo_digits", SMALL)[1]
    digest = digest_of_images(open_set(config.data, "val"))
    plain, notes = report("flyweight report"), Notes()
    preprocessing = Preprocessing(height=64, width=64)

    def shown(given=None):
        made = with_explorer_of_folder(plain, folder, given, foreign=False, progress=notes)
        return made.explorer is not None

    def scan_of(data):
        curves(preprocessing=preprocessing_text(preprocessing), data=data).save(
            folder / "sens.json"
        )

    scan_of("d")
    assert recorded_data(folder) == ""
    assert shown()
    assert not shown(config)
    assert f"with other: data (d, here {digest[:12]})" in notes.said[-1]
    scan_of(digest)
    assert shown(config)
    TRAIN.workspace(folder, in_chain=True).begin(MadeFrom({"val images": "e"}))
    assert recorded_data(folder) == "e"
    assert not shown()
    assert f"with other: data ({digest[:12]}, here e)" in notes.said[-1]
    assert shown(config)
    # Digests of version 0.1.0 can be compared with data alone.
    curves(data=digest_of_images_0_1_0(open_set(config.data, "val"))).save(folder / "sens.json")
    assert shown()
    assert shown(config)


def test_a_scan_beside_a_checkpoint_that_was_trained_by_hand_is_shown(folder):
    (folder / "dense" / "best_model.safetensors").rename(folder / "best_model.safetensors")
    curves().save(folder / "sens.json")
    assert with_explorer(report("flyweight report"), folder, say=lambda _: None).explorer


def test_the_page_of_a_foreign_scan_shows_a_command_that_takes_it(folder):
    weights = folder / "dense" / "best_model.safetensors"
    curves(weights="0123").save(folder / "one.json")
    source = ModelSource("demo_digits", TINY, str(weights))
    with pytest.raises(DataError, match="with other: weights"):
        merge_scans([folder / "one.json"], folder / "s.json", source)
    found = merge_scans([folder / "one.json"], folder / "s.json", source, foreign=True)
    for foreign in (True, False):
        write_scan_page(found, source, folder / "s.html", "", foreign=foreign)
        page = (folder / "s.html").read_text()
        assert ("--foreign-scan" in page) == foreign
