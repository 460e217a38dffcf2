import json
import os
import sys
from dataclasses import replace

import pytest
from PIL import Image

from flyweight import pipeline
from flyweight.config.reading import load_config
from flyweight.config.scanning import SensitivityOptions
from flyweight.config.shipped_networks import shipped_network
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.errors import DataError, FileError, MeasureError
from flyweight.pipeline.stages import scan as stage
from flyweight.pipeline.version_0_1_0 import digest_of_images_0_1_0
from flyweight.sensitivity import Point, Sensitivity, read
from flyweight.sensitivity.journal import parts_of

# The name of the module is the function's, too.
SCAN_MODULE = sys.modules["flyweight.sensitivity.scan"]
LAYER = "yolo_block.0.0.0.conv.weight"
OPTIONS = SensitivityOptions(ratios=(0.5,), layers=(LAYER,))


@pytest.fixture
def trained():
    """The checkpoint of a network that finds something."""
    return shipped_network(*load_config("digit_detector"))


@pytest.fixture
def config_of_trained(trained):
    """Return its config with overrides."""
    few = ("data.train_count=2", "data.val_count=3", "eval_batch_size=3", "train.num_workers=0")

    def read(*overrides):
        return load_config("digit_detector", (*few, f"weights={trained}", *overrides))[1]

    return read


def interrupted(config, path, monkeypatch):
    """Scan until the first batch is done."""

    def dies(*_, **__):
        raise MeasureError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(SCAN_MODULE, "_merged", dies)
        with pytest.raises(MeasureError):
            pipeline.scan("run", config, path, OPTIONS)


def test_a_scan_from_python(config_of_trained, trained, notes, tmp_path):
    config = config_of_trained()
    found = pipeline.scan("run", config, tmp_path / "s.json", OPTIONS, progress=notes)
    assert read(found.file).curves == found.curves.curves
    assert list(found.curves.curves) == [LAYER]
    assert found.curves.measured_on == "digits/val, 3 images"
    assert found.graph.fingerprint == found.curves.made_from["graph"]
    by_weights = "note: channels are scored by l1_norm, because a scan does not measure 'taylor'"
    assert notes.said == [f"weights: {trained}", by_weights]
    assert json.loads(found.curves.made_from["preprocessing"])["height"] == 160
    assert json.loads(found.curves.made_from["network"])["width"] == 0.25
    assert not parts_of(found.file).folder.exists()


def test_images_without_labels(config_of, dense, notes, tmp_path):
    images = tuple(tmp_path / f"{number}.png" for number in range(2))
    for path in images:
        Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    config = config_of(f"weights={dense}", "data.format=voc", "data.root=nowhere")
    options = replace(OPTIONS, images=images)
    found = pipeline.scan("run", config, tmp_path / "s.json", options, progress=notes)
    assert found.curves.metric == "agreement"
    assert "note: no labels: agreement (feature_error) is weaker than a metric" in notes.said


@pytest.mark.parametrize("version", ["now", "0.1.0"])
def test_an_interrupted_scan_is_resumed(config_of_trained, monkeypatch, tmp_path, version):
    write_voc(open_set(config_of_trained().data, "train"), tmp_path / "set")
    write_voc(open_set(config_of_trained().data, "val"), tmp_path / "set")
    config = config_of_trained("data.format=voc", f"data.root={tmp_path / 'set'}")
    path = tmp_path / "s.json"
    interrupted(config, path, monkeypatch)
    note = parts_of(path).note_path
    if version == "0.1.0":
        digests = json.loads(note.read_text())["made_from"]
        note.write_text(json.dumps({**digests, "data": digest_of_images_0_1_0(_val(config))}))
    part = path.with_name("s.json.parts") / "batch-000000.json"
    os.utime(part, (1, 1))
    states = []
    monkeypatch.setattr(SCAN_MODULE, "_states", lambda *_: states.append(1))
    found = pipeline.scan("run", config, path, OPTIONS)
    assert states == []
    assert found.curves.curves[LAYER]
    assert not part.exists()


def _val(config):
    return open_set(config.data, "val")


def test_two_scans_into_one_file_are_refused(config_of, dense, tmp_path):
    config, path = config_of(f"weights={dense}"), tmp_path / "s.json"
    with parts_of(path).locked(), pytest.raises(FileError, match=r"s\.json\.parts.*works"):
        pipeline.scan("run", config, path, OPTIONS)


def test_scans_are_merged(config_of, dense, notes, tmp_path):
    for name in ("one", "two"):
        Sensitivity("map_50", 0.8, {name: (Point(0.5, 0.7),)}).save(tmp_path / f"{name}.json")
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    found = pipeline.merge_scans(files, tmp_path / "all.json")
    assert list(read(found.file).curves) == ["one", "two"]
    assert found.graph is None
    source = pipeline.ModelSource(weights=str(dense))
    found = pipeline.merge_scans(files, tmp_path / "all.json", source, progress=notes)
    assert LAYER in found.graph.groups
    assert notes.said[0] == f"weights: {dense}"
    assert "one.json' does not say what it was measured on" in notes.said[1]
    fields = {"curves": {LAYER: (Point(0.5, 0.7),)}, "made_from": {"weights": "0123"}}
    Sensitivity("map_50", 0.8, **fields).save(tmp_path / "one.json")
    with pytest.raises(DataError, match="with other: weights"):
        pipeline.merge_scans(files[:1], tmp_path / "other.json", source)
    assert not (tmp_path / "other.json").exists()
    pipeline.merge_scans(files[:1], tmp_path / "other.json", source, foreign=True)


def test_a_network_that_finds_nothing_is_refused(config_of, dense, tmp_path):
    with pytest.raises(DataError, match="must be above 0"):
        pipeline.scan("run", config_of(f"weights={dense}"), tmp_path / "s.json", OPTIONS)
    assert not list(tmp_path.glob("s.json"))


def test_too_few_images_for_the_fast_mode_are_named(config_of_trained, notes, tmp_path):
    fast = replace(OPTIONS, mode="fast")
    found = pipeline.scan("run", config_of_trained(), tmp_path / "s.json", fast, progress=notes)
    assert notes.said[1].startswith("note: 3 images are too few for the fast mode")
    (point,) = found.curves.curves[LAYER]
    assert 0 <= point.interval[0] <= point.value <= point.interval[1] <= 1


def test_a_chain_scans_where_the_cut_asks_for_a_scan_of_its_own(config_of):
    nothing = ("prune.params=[]", "prune.ratios=[]", "prune.max_drop=0.1")
    assert not stage.SCAN.wanted(config_of())
    assert not stage.SCAN.wanted(config_of(*nothing, "prune.scan=a.json"))
    assert stage.SCAN.wanted(config_of(*nothing, "prune.scan=this_run"))
