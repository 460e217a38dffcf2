import json

import pytest
import torch

import flyweight as fw
from flyweight import pipeline
from flyweight.errors import ConfigError, FileError, MeasureError, TrainingError
from flyweight.pipeline.stages import train as stage
from flyweight.workspace import Workspace


def test_a_network_is_trained_from_python(config_of, notes, tmp_path):
    config = config_of()
    found = pipeline.train("run", config, progress=notes)
    folder = tmp_path / "output" / "run"
    assert found.checkpoint == folder / "best_model.safetensors"
    assert set(found.metrics) >= {"map_50"}
    assert found.seconds > 0
    assert notes.said[0] == "weights: fresh"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("best_model.safetensors", "model_final.safetensors", "logs", "state", "train.done.json")
    }
    note = json.loads((folder / "train.done.json").read_text())
    assert note["finished"] is True
    assert note["made_from"]["train.steps"] == 3
    assert "train.log_every" not in note["made_from"]


def test_a_killed_training_is_resumed_to_the_same_bits(config_of, monkeypatch, notes):
    whole = pipeline.train("whole", config_of())

    from flyweight.engine.loop import Training

    optimize = Training._optimize

    def dies(self, batch, step):
        if step == 2:
            raise TrainingError("the power went out")
        return optimize(self, batch, step)

    every = config_of("train.checkpoint_every=1")
    with monkeypatch.context() as patched:
        patched.setattr(Training, "_optimize", dies)
        with pytest.raises(TrainingError):
            pipeline.train("cut", every)
    resumed = pipeline.train("cut", every, resume=True, progress=notes)
    assert any(line.startswith("resumed from") for line in notes.said)
    states = [fw.load(found.checkpoint).state_dict() for found in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_has_changed_since_an_attempt_is_said(config_of, monkeypatch, notes):
    def dies(*_, **__):
        raise MeasureError("the power went out")

    config = config_of("train.steps=1", "train.evaluate_every=1")
    pipeline.train("run", config)
    monkeypatch.setattr(stage, "fit", dies)
    with pytest.raises(MeasureError):
        pipeline.train(
            "run",
            config_of("train.steps=1", "train.evaluate_every=1", "data.seed=1"),
            resume=True,
            progress=notes,
        )
    assert notes.said[0] == "note: resumed although train images changed; val images changed"


def test_another_run_in_the_folder_is_refused_before_the_data_are_read(config_of, monkeypatch):
    config = config_of()
    monkeypatch.setattr(stage, "open_data", lambda *_, **__: pytest.fail("data were read"))
    folder = Workspace(stage.Path(config.save_dir) / "run")
    with folder.locked(), pytest.raises(FileError, match="Only one run at a time"):
        pipeline.train("run", config)


def test_a_network_that_cannot_be_built_is_refused_before_the_data_are_read(config_of, monkeypatch):
    monkeypatch.setattr(stage, "open_data", lambda *_, **__: pytest.fail("data were read"))
    with pytest.raises(ConfigError, match="depth"):
        pipeline.train("run", config_of("model_args={depth: 3}"))
