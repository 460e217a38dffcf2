import errno
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flyweight.engine.logs import Logs
from flyweight.errors import FileError


def test_a_resumed_log_has_every_step_once(tmp_path):
    with Logs(tmp_path, 0) as logs:
        for step in (1, 2, 3):
            logs.train(step, {"loss": step / 2, "learning_rate": 0.1})
        logs.metrics(3, {"map": 0.25})
    with (tmp_path / "train.csv").open("a") as file:
        file.write("4,0.")
    with Logs(tmp_path, 2) as logs:
        logs.train(3, {"loss": 9.0, "learning_rate": 0.1})
        logs.metrics(3, {"map": 0.75})
    text = (tmp_path / "train.csv").read_text()
    assert text == "step,loss,learning_rate\n1,0.5,0.1\n2,1.0,0.1\n3,9.0,0.1\n"
    assert (tmp_path / "metrics.csv").read_text() == "step,map\n3,0.75\n"
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert seen == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert [event.value for event in board.Scalars("metrics/map")] == [0.75]


def test_a_new_run_starts_a_new_log(tmp_path):
    for value in (1.0, 2.0):
        with Logs(tmp_path, 0) as logs:
            logs.train(1, {"loss": value})
    assert (tmp_path / "train.csv").read_text() == "step,loss\n1,2.0\n"


def test_columns_stay_when_an_evaluation_has_fewer_numbers(tmp_path):
    with Logs(tmp_path, 0) as logs:
        logs.metrics(1, {"map": 0.5, "ap50": 0.75})
        logs.metrics(2, {"ap50": 0.8, "new": 1.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,map,ap50\n1,0.5,0.75\n2,,0.8\n"


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Logs(tmp_path, 0) as logs:
        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(FileError, match=r"train\.csv' must be writable. Received: No space"):
            logs.train(1, {"loss": 1.0})
        monkeypatch.undo()


def test_a_file_that_a_kill_left_without_content_or_with_half_a_row(tmp_path):
    (tmp_path / "metrics.csv").write_text("")
    (tmp_path / "train.csv").write_text("step,loss\n1,0.5\n2,0.25\nx\x00y,1\n3,")
    with Logs(tmp_path, 2) as logs:
        logs.metrics(3, {"map": 0.5})
        logs.train(3, {"loss": 0.125})
    assert (tmp_path / "metrics.csv").read_text() == "step,map\n3,0.5\n"
    assert (tmp_path / "train.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n3,0.125\n"


def test_a_file_appears_with_its_first_row(tmp_path, monkeypatch):
    seen = []
    replace = Path.replace

    def look(self, target):
        seen.append((target.exists(), self.read_text()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    with Logs(tmp_path, 0) as logs:
        logs.metrics(1, {"map": 0.5})
        logs.metrics(2, {"map": 0.75})
    assert seen == [(False, "step,map\n1,0.5\n")]


def test_a_disk_that_is_full_when_tensorboard_makes_its_file(tmp_path, monkeypatch):
    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FileError, match=r"must be writable\. Received: No space left"):
        Logs(tmp_path, 0)
