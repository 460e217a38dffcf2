import json
import shutil
import sys

import pytest
from tests.test_version_0_1_0 import FIXTURES

from flyweight.config.reading import load_config
from flyweight.data.loading import open_set
from flyweight.errors import MeasureError
from flyweight.pipeline import run_chain
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.stages import bench, export, prune, train
from flyweight.pipeline.version_0_1_0 import digest_of_images_0_1_0, digest_of_stage_0_1_0


@pytest.fixture
def config(monkeypatch):
    """The config of the fixtures, whose network is importable as its config names it."""
    monkeypatch.syspath_prepend(str(FIXTURES))
    yield load_config(str(FIXTURES / "tiny.yaml"))[1]
    sys.modules.pop("tiny_network", None)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(FIXTURES / "demo", tmp_path / "demo")
    return tmp_path / "demo"


@pytest.mark.parametrize(
    ("stage", "place"), [("train", "dense"), ("prune", "pruned"), ("export", "export")]
)
def test_notes_of_a_chain_are_computed_as_they_were(config, folder, stage, place):
    note = json.loads((folder / place / "done.json").read_text())
    data = open_data(config)
    assert digest_of_stage_0_1_0(stage, "tiny", config, data, folder) == note["made_from"]
    other = config.model_copy(update={"num_classes": 11})
    found = digest_of_stage_0_1_0(stage, "other", other, data, folder)
    assert found not in (None, note["made_from"])


def test_stages_without_a_note_or_an_earlier_checkpoint(config, folder, tmp_path):
    data = open_data(config)
    assert digest_of_stage_0_1_0("bench", "tiny", config, data, folder) is None
    assert digest_of_stage_0_1_0("prune", "tiny", config, data, tmp_path) is None


def test_a_finished_chain_of_version_0_1_0_is_not_run_again(config, folder, monkeypatch):
    def runs(*_, **__):
        raise MeasureError("it runs again")

    for module, name in ((train, "fit"), (prune, "plan_cut"), (export, "export_model")):
        monkeypatch.setattr(module, name, runs)
    monkeypatch.setattr(bench, "measure", runs)
    with pytest.raises(MeasureError):  # Measurements were not kept then.
        run_chain("tiny", config, folder)
    notes = [
        json.loads((folder / place / "done.json").read_text()) for place in ("dense", "pruned")
    ]
    assert [note["made_from"]["num_classes"] for note in notes] == [10, 10]
    assert [note["seconds"] for note in notes] == [2.0, 0.4]
    other = config.model_copy(update={"augment": config.augment.off()})
    with pytest.raises(MeasureError):
        run_chain("tiny", other, folder)
    assert json.loads((folder / "dense/done.json").read_text())["finished"] is False


def test_images_on_disk_are_digested_by_place_and_time(config, tmp_path):
    images = open_set(config.data, "val")
    assert digest_of_images_0_1_0(images) == digest_of_images_0_1_0(images)
    assert digest_of_images_0_1_0(images) != digest_of_images_0_1_0(open_set(config.data, "train"))
