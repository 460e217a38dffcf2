import pytest
import torch

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.errors import CheckpointError
from flyweight.pipeline.inputs import Saver, open_data
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.results import Trained
from flyweight.pipeline.stage import Inputs, made_from
from flyweight.pipeline.stages.shipped import shipped_stage
from flyweight.pipeline.stages.train import TRAIN


@pytest.fixture
def shipped(tmp_path, config_of):
    """A network in half precision, as those of the package are."""
    path = tmp_path / "shipped.safetensors"
    fw.save(build_model(config_of()), path, half=True, task="detect", labels=tuple("0123456789"))
    return path


def test_it_leaves_what_a_training_leaves(shipped, config_of, notes, tmp_path):
    config, stage = config_of(), shipped_stage(shipped)
    assert (stage.name, stage.folder) == (TRAIN.name, TRAIN.folder)
    workspace = stage.workspace(tmp_path / "run", in_chain=True)
    for left in ("logs/train.csv", "state/last.safetensors"):
        (workspace.folder / left).parent.mkdir(parents=True, exist_ok=True)
        (workspace.folder / left).write_text("of another network")
    inputs = Inputs("digits", open_data(config), progress=notes)
    found = stage.run(inputs, stage.view(config), workspace)
    assert isinstance(found, Trained)
    assert found.checkpoint == tmp_path / "run/dense/best_model.safetensors"
    assert {path.name for path in workspace.folder.iterdir()} == {"best_model.safetensors"}
    assert notes.said == ["weights: trained before, from shipped.safetensors"]

    about = read(found.checkpoint)
    assert about.metrics == pytest.approx(found.metrics, nan_ok=True)
    assert about.preprocessing["height"] == 64
    saved, given = (fw.load(path).state_dict() for path in (found.checkpoint, shipped))
    assert all(torch.equal(saved[name], given[name]) for name in given)
    assert saved["yolo_output.0.conv.weight"].dtype == torch.float32
    again = stage.read(inputs, stage.view(config), workspace)
    assert again.metrics == pytest.approx(found.metrics, nan_ok=True)


def test_other_weights_make_another_result(shipped, config_of, tmp_path):
    config = config_of()
    inputs = Inputs("digits", open_data(config))
    first = made_from(shipped_stage(shipped), config, inputs, tmp_path)
    moved = tmp_path / "moved.safetensors"
    shipped.rename(moved)
    assert made_from(shipped_stage(moved), config, inputs, tmp_path) == first
    Saver(config, tuple("0123456789"), "detect")(build_model(config), {}, shipped)
    assert made_from(shipped_stage(shipped), config, inputs, tmp_path) != first


def test_another_network_is_refused(shipped, config_of, tmp_path):
    config, stage = config_of("width=0.2"), shipped_stage(shipped)
    workspace = stage.workspace(tmp_path / "run", in_chain=True)
    with pytest.raises(CheckpointError, match="width"):
        stage.run(Inputs("digits", open_data(config)), stage.view(config), workspace)
