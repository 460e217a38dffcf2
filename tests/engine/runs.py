"""Runs of the toy of `toy.py`, and how two runs are compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from flyweight.config.training import TrainConfig
from flyweight.engine.fit import fit
from flyweight.engine.run import Loaders
from flyweight.engine.state import load_state

SETTINGS = {
    "steps": 12,
    "learning_rate": 0.05,
    "milestones": (8,),
    "warmup_steps": 3,
    "evaluate_every": 4,
    "checkpoint_every": 3,
    "log_every": 1,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
}
TOY = Path(__file__).with_name("toy.py")


class CutError(Exception):
    """Stands for whatever ends a process."""


def go(toy, folder, settings, *, cut_at=None, **options):
    """Train the toy in this process; `cut_at` ends it when that step asks for its batch."""
    config = TrainConfig(**settings)

    def train(start, rank, world):
        for step, batch in enumerate(
            toy.train_batches(start, rank, world, steps=config.steps), start
        ):
            if step == cut_at:
                raise CutError
            yield batch

    model = options.pop("model", None) or toy.toy_model()
    task = options.pop("task", None) or toy.ToyTask()
    loaders = options.pop("loaders", None) or Loaders(train, toy.val_batches)
    options.setdefault("save_model", toy.save)
    result = fit(model, task, loaders, config, save_dir=folder, **options)
    return model, result


def state_of(folder):
    state = load_state(folder / "state/last.safetensors")[1]
    del state["status"]["seconds"]
    return state


def assert_same(left, right, where=""):
    """Compare nested values; tensors must agree to the bit."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for name in left:
            assert_same(left[name], right[name], f"{where}/{name}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for number, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}/{number}")
    else:
        assert left == right, where


def assert_same_run(left, right):
    assert_same(state_of(left), state_of(right))
    for name in ("best_model.safetensors", "model_final.safetensors"):
        assert_same(load_file(left / name), load_file(right / name))
    for name in ("train.csv", "metrics.csv"):
        assert (left / "logs" / name).read_text() == (right / "logs" / name).read_text()


def start_process(folder, *options):
    command = [sys.executable, str(TOY), str(folder), json.dumps(SETTINGS), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def run_process(folder, settings, *options):
    command = [sys.executable, str(TOY), str(folder), json.dumps(settings), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
