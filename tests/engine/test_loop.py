import os
import random
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.engine.runs import SETTINGS, assert_same, go, state_of

from flyweight.engine.hooks import Hook
from flyweight.engine.loop import is_better, seed_step, summary
from flyweight.errors import FileError

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "best", "expected"),
    [
        (0.5, None, True),
        (NAN, None, True),
        (0.5, 0.4, True),
        (0.5, 0.5, False),
        (0.3, 0.4, False),
        (NAN, 0.4, False),
        (0.0, NAN, True),
        (NAN, NAN, False),
    ],
)
def test_what_beats_what(value, best, expected):
    record = None if best is None else {"map": best}
    assert is_better({"map": value}, record, "map") is expected


def test_an_evaluation_of_nothing_beats_nothing():
    assert not is_better({}, {"map": 0.0}, "map")
    assert is_better({"map": 0.0}, {}, "map")


def test_a_step_draws_the_same_whatever_was_drawn_before():
    def draw(*where):
        seed_step(*where)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = draw(7, 3, 0)
    torch.rand(5)
    assert draw(7, 3, 0) == first
    others = [draw(8, 3, 0), draw(7, 4, 0), draw(7, 3, 1)]
    assert len({first, *others}) == 4


def test_single_classes_stay_out_of_the_line():
    assert summary({"map_50": 0.123456, "ap/cat": 1.0}) == "map_50 0.1235"


@pytest.mark.parametrize("at", [2, 3, 5])
def test_ctrl_c_ends_the_step_and_saves_the_state(toy, tmp_path, at):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    go(toy, whole, SETTINGS)

    class PressCtrlC(Hook):
        name = "CtrlC"

        def before_step(self, training, step):
            if step == at and not pressed:
                pressed.append(step)
                os.kill(os.getpid(), signal.SIGINT)

    pressed = []
    with pytest.raises(KeyboardInterrupt):
        go(toy, cut, SETTINGS, hooks=[PressCtrlC()])
    assert state_of(cut)["status"]["step"] == at + 1
    assert not (cut / "model_final.safetensors").exists()
    go(toy, cut, SETTINGS, hooks=[PressCtrlC()], resume=True)
    left, right = state_of(whole), state_of(cut)
    assert_same({**left, "hooks": []}, {**right, "hooks": []})
    for name in ("best_model.safetensors", "model_final.safetensors"):
        assert_same(load_file(whole / name), load_file(cut / name))
    for name in ("train.csv", "metrics.csv"):
        assert (whole / "logs" / name).read_text() == (cut / "logs" / name).read_text()


def test_a_second_run_in_the_folder_is_refused(toy, tmp_path):
    refused = []

    class Second(Hook):
        def before_step(self, training, step):
            with pytest.raises(FileError, match="Only one run at a time") as error:
                go(toy, tmp_path / "run", SETTINGS)
            refused.append(error)

    go(toy, tmp_path / "run", {**SETTINGS, "steps": 9}, hooks=[Second()])
    assert len(refused) == 9
    assert len((tmp_path / "run" / "logs/train.csv").read_text().splitlines()) == 10
