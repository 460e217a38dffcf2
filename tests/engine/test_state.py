import errno
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.engine.state import (
    RunStatus,
    load_run,
    load_state,
    load_weights,
    old_state_path,
    refuse_old_state,
    remove_foreign_state,
    remove_states,
    require_same_config,
    save_state,
    state_path,
)
from flyweight.engine.tensor_document import write_document
from flyweight.errors import CheckpointError, ConfigError, FileError

CONFIG = TrainConfig(steps=5, milestones=(2, 3))


def test_a_state_comes_back(tmp_path):
    status = RunStatus(step=3, best={"map": 0.5}, last={"map": 0.25}, best_step=2, seconds=1.5)
    path = tmp_path / "state" / "last.safetensors"
    save_state(path, CONFIG, status, {"model": {"a": torch.arange(3)}})
    found, document = load_state(path)
    assert found == status
    assert torch.equal(document["model"]["a"], torch.arange(3))
    require_same_config(CONFIG, document["config"], path)
    assert [file.name for file in path.parent.iterdir()] == ["last.safetensors"]


def test_the_states_of_an_earlier_run_are_removed(tmp_path):
    paths = state_path(tmp_path), old_state_path(tmp_path)
    remove_states(tmp_path)
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_states(tmp_path)
    assert not any(path.exists() for path in paths)


def test_only_the_state_of_another_network_is_removed(tmp_path):
    path = state_path(tmp_path)
    network, narrow = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3)
    remove_foreign_state(tmp_path, network)  # There is none.
    save_state(path, CONFIG, RunStatus(), {"model": network.state_dict()})
    remove_foreign_state(tmp_path, network)
    assert path.exists()
    remove_foreign_state(tmp_path, narrow)
    assert not path.exists()
    path.write_bytes(b"damaged")
    remove_foreign_state(tmp_path, network)
    assert path.exists()


def test_every_key_but_the_harmless_ones_must_stay():
    changed = {
        "steps": 6, "batch_size": 9, "learning_rate": 1.0, "momentum": 0.1, "weight_decay": 0.1,
        "optimizer": "adamw", "schedule": "cosine", "milestones": (2, 4), "gamma": 0.5,
        "warmup_steps": 1, "warmup_start_factor": 0.5, "ema_decay": 0.5, "precision": "bf16",
        "accelerator": "cpu", "devices": 2, "channels_last": False, "clip_norm": 1.0,
        "evaluate_every": 1, "seed": 1, "patience": 1, "power": 0.5, "rate_factors": {"a": 2.0},
    }  # fmt: skip
    assert changed.keys() | HARMLESS == TrainConfig.model_fields.keys()
    saved = CONFIG.model_dump(mode="json")
    for key, value in changed.items():
        other = CONFIG.model_copy(update={key: value})
        with pytest.raises(ConfigError, match=f"'{key}' was"):
            require_same_config(other, saved, Path("x"))
    other = CONFIG.model_copy(update={"log_every": 1, "checkpoint_every": 1, "num_workers": 0})
    require_same_config(other, saved, Path("x"))


def test_a_setting_that_the_saved_run_did_not_have_may_keep_its_default():
    saved = CONFIG.model_dump(mode="json", exclude={"patience"})
    require_same_config(CONFIG, saved, Path("x"))
    with pytest.raises(ConfigError, match="'patience' was None in 'x' and is 3 now"):
        require_same_config(CONFIG.model_copy(update={"patience": 3}), saved, Path("x"))


def test_a_file_that_is_no_state_is_refused_in_one_line(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_state(whole, CONFIG, RunStatus(), {})
    broken = {
        "truncated": whole.read_bytes()[:-100],
        "empty": b"",
        "text": b"hello",
    }
    for name, content in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"'.*{name}' is not") as caught:
            load_state(path)
        assert "\n" not in str(caught.value)
    torch.save({"state_dict": {}}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="foreign' is not"):
        load_state(tmp_path / "foreign")
    write_document(tmp_path / "newer", "flyweight_training_state", {"format": 99})
    with pytest.raises(CheckpointError, match="Received format 99"):
        load_state(tmp_path / "newer")
    with pytest.raises(CheckpointError, match="No such file"):
        load_state(tmp_path / "absent")


def test_nothing_is_unpickled(tmp_path):
    torch.save({"format": 1, "standing": {}, "trap": Path("x")}, tmp_path / "trap")
    with pytest.raises(CheckpointError, match="trap' is not: it is a pickle"):
        load_state(tmp_path / "trap")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": {"step": "3"}},
        {"status": {"step": 3, "last": [1]}},
        {"status": None},
        {"format": None},
    ],
    ids=["text", "list", "none", "format"],
)
def test_a_status_of_other_types_is_refused(tmp_path, changes):
    path = tmp_path / "last.safetensors"
    whole = {"format": 2, "config": {}, "status": {}, **changes}
    write_document(path, "flyweight_training_state", whole)
    with pytest.raises(CheckpointError, match=r"last\.safetensors'") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)


WHOLE = {
    "hooks": [("Hook", None)],
    "model": {"a": torch.zeros(1)},
    "ema": None,
    "objective": None,
    "objective_ema": None,
    "optimizer": {},
    "precision": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"hooks": [1]},
        {"hooks": None},
        {"model": None},
        {"model": {"a": 1}},
        {"ema": [torch.zeros(1)]},
        {"optimizer": None},
        {"precision": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_state_without_its_parts_is_refused(tmp_path, changes):
    path = tmp_path / "last.safetensors"
    save_state(path, CONFIG, RunStatus(), WHOLE)
    assert load_run(path)[1]["hooks"] == WHOLE["hooks"]
    save_state(path, CONFIG, RunStatus(), {**WHOLE, **changes})
    with pytest.raises(CheckpointError, match=r"last\.safetensors' is not"):
        load_run(path)
    missing = {name: value for name, value in WHOLE.items() if name not in changes}
    save_state(path, CONFIG, RunStatus(), missing)
    with pytest.raises(CheckpointError, match=r"last\.safetensors' is not"):
        load_run(path)


def test_a_state_of_version_0_1_0_is_refused_in_one_line(tmp_path):
    old_state_path(tmp_path).parent.mkdir()
    torch.save({"format": 1, "standing": {}}, old_state_path(tmp_path))
    for refused in (
        lambda: refuse_old_state(tmp_path),
        lambda: load_state(old_state_path(tmp_path)),
    ):
        with pytest.raises(CheckpointError, match=r"last\.ckpt' is not.*version 0\.1\.0") as caught:
            refused()
        assert "\n" not in str(caught.value)
    save_state(state_path(tmp_path), CONFIG, RunStatus(), {})
    refuse_old_state(tmp_path)


def test_metrics_that_are_no_numbers_come_back(tmp_path):
    status = RunStatus(best={"map": float("nan")}, last={"map": float("inf")})
    save_state(tmp_path / "a", CONFIG, status, {})
    found, _ = load_state(tmp_path / "a")
    assert math.isnan(found.best["map"])
    assert found.last == status.last


def test_a_full_disk_leaves_the_older_state(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    save_state(path, CONFIG, RunStatus(step=1), {})

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="No space left on device"):
        save_state(path, CONFIG, RunStatus(step=2), {})
    assert load_state(path)[0].step == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_of_another_model_are_refused_by_name():
    with pytest.raises(CheckpointError, match=r"'weight' has shape \(3, 2\) .* \(4, 2\) in 'x'"):
        load_weights(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(4, 2)}, Path("x"))


def test_weights_of_another_type_are_refused_by_name():
    model = nn.Linear(2, 3, bias=False)
    with pytest.raises(
        CheckpointError, match=r"'weight' has type torch\.float32 .* torch\.float16"
    ):
        load_weights(model, {"weight": torch.zeros(3, 2).half()}, Path("x"))


def test_terms_have_running_means():
    status = RunStatus()
    for step, loss in enumerate((8.0, 4.0, 0.0), start=1):
        status.step = step
        status.add_terms({"loss": loss}, window=2)
    # The plain mean of the first two steps, then half of it and half of the third.
    assert status.means == {"loss": 3.0}
