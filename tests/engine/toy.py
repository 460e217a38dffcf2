"""A tiny model, task and loaders for the engine's tests; also a program that trains them.

`python toy.py FOLDER CONFIG_JSON [--resume] [--die-saving NAME] [--wait SECONDS] [--poison STEP]
[--plain] [--cut-after STEP]`
"""

import argparse
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch, BoxTarget
from flyweight.engine.fit import fit
from flyweight.engine.hooks import Hook
from flyweight.engine.objective import Objective
from flyweight.engine.run import Loaders
from flyweight.graph import trace
from flyweight.pruning import PruningPlan, plan, prune_
from flyweight.tasks.task import Task

IMAGES = 10


def toy_model(*, norm=True, dropout=0.2):
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=not norm)]
    layers += [nn.BatchNorm2d(6)] if norm else []
    layers += [nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(6, 2, 3, padding=1)]
    return nn.Sequential(*layers)


def toy_batch(*indices):
    images = [
        torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index)) for index in indices
    ]
    targets = tuple(
        BoxTarget(
            boxes=torch.zeros(0, 4),
            labels=torch.tensor([index % 2]),
            weights=torch.ones(1),
            difficult=torch.zeros(1, dtype=torch.bool),
            crowd=torch.zeros(1, dtype=torch.bool),
            image_id=index,
            path=Path(),
            original_size=(8, 8),
            scale=(1.0, 1.0),
        )
        for index in indices
    )
    return Batch(torch.stack(images), targets)


class ToyMetric:
    """Mean squared error over all images, whatever their order, and their number."""

    def __init__(self):
        self.errors = {}

    def update(self, predictions, batch):
        for value, target in zip(predictions, batch.targets, strict=True):
            self.errors[target.image_id] = float(value)

    def compute(self):
        if not self.errors:
            return {}
        mean = sum(self.errors[key] for key in sorted(self.errors)) / len(self.errors)
        return {"quality": -mean, "pictures": float(len(self.errors))}

    def state(self):
        return dict(self.errors)

    def merge(self, state):
        self.errors.update(state)


class ToyTask(Task):
    """Each channel of the output shall be the mean channel of the image."""

    name = "toy"
    labels = ("even", "odd")
    primary = "quality"

    def __init__(self, poison=None):
        self.poison = poison
        self.calls = 0

    def loss(self, outputs, batch):
        self.calls += 1
        assert outputs.dtype == torch.float32
        near = (outputs - batch.images.mean(1, keepdim=True)).square().mean()
        small = 0.01 * outputs.abs().mean()
        if self.calls == self.poison:
            small = small * float("nan")
        return {"loss": near + small, "near": near, "small": small}

    def decode(self, outputs, batch):
        assert outputs.dtype == torch.float32
        return (outputs - batch.images.mean(1, keepdim=True)).square().mean((1, 2, 3))

    def metric(self):
        return ToyMetric()

    def draw(self, image, prediction, save_to, *, threshold):
        raise AssertionError("the engine draws nothing")


class AdaptedObjective(Objective):
    """The task's loss, and how well an adaptor of its own makes images of the outputs."""

    rate_factor = 0.5
    averaged = True

    def __init__(self, task):
        self.task = task
        torch.manual_seed(5)
        self.modules = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        self.fixed = nn.Conv2d(3, 3, 1).eval().requires_grad_(False)
        self.attached = []

    def attach(self, model):
        self.attached.append(model)

    def loss(self, model, batch):
        assert self.modules.training
        outputs = self.task.forward(model, batch)
        terms = self.task.loss(outputs, batch)
        adapted = (self.modules(outputs) - self.fixed(batch.images)).square().mean()
        return {**terms, "loss": terms["loss"] + adapted, "adapted": adapted}


class CutAfter(Hook):
    """Halves the channels of the first layer after `at` steps, and notes every call."""

    def __init__(self, at):
        self.at, self.plan, self.calls = at, None, []

    def state(self):
        return {"plan": self.plan}

    def restore(self, state, change_model):
        self.plan = state["plan"]
        if self.plan is not None:
            self._cut(change_model)

    def _cut(self, change_model):
        made = PruningPlan.from_json(self.plan)
        change_model(lambda model, optimizer: prune_(model, made, optimizer))

    def before_step(self, training, step):
        self.calls.append(("before", step, training.model[0].weight.shape[0]))

    def after_step(self, training, done):
        self.calls.append(("after", done, training.model[0].weight.shape[0]))
        if done == self.at:
            training.note(f"step {done}: cut")
            graph = trace(training.model, (torch.zeros(1, 3, 8, 8),))
            self.plan = plan(graph, 0.5).to_json()
            self._cut(training.change_model)

    def before_evaluation(self, training, done):
        average = training.average
        self.calls.append(("evaluate", done, average and average[0].weight.shape[0]))

    def after_evaluation(self, training, done, metrics):
        self.calls.append(("evaluated", done, sorted(metrics)))


def train_batches(start, rank, world, *, steps, size=4, wait=0.0):
    for step in range(start, steps):
        time.sleep(wait)
        share = range(step * size + rank, (step + 1) * size, world)
        yield toy_batch(*share)


def val_batches(rank, world, *, size=3):
    share = list(range(1000 + rank, 1000 + IMAGES, world))
    return [toy_batch(*share[at : at + size]) for at in range(0, len(share), size)]


def save(model, metrics, path, *, die=None):
    """Write what safetensors accepts: contiguous tensors on the CPU."""
    assert not model.training
    if die == path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    text = {name: repr(value) for name, value in metrics.items()}
    save_file(model.state_dict(), path, metadata=text)


def loaders_for(steps, **options):
    return Loaders(partial(train_batches, steps=steps, **options), val_batches)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-saving")
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--poison", type=int)
    parser.add_argument("--plain", action="store_true", help="no norm, no dropout")
    parser.add_argument("--cut-after", type=int, help="with an objective that owns modules")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(**given.config)
    task = ToyTask(given.poison)
    fit(
        toy_model(norm=False, dropout=0.0) if given.plain else toy_model(),
        task,
        loaders_for(config.steps, wait=given.wait),
        config,
        save_dir=given.folder,
        resume=given.resume,
        save_model=partial(save, die=given.die_saving),
        hooks=[CutAfter(given.cut_after)] if given.cut_after else [],
        objective=AdaptedObjective(task) if given.cut_after else None,
    )


if __name__ == "__main__":
    main()
