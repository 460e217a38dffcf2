"""The loop itself, as one process runs it.

`lightning.Fabric` places, wraps, casts, scales and synchronises; the order of things is here in
full view, because resuming to the bit depends on it: optimizer step, average, logs, evaluation,
best weights, state.
"""

import copy
import logging
import math
import random
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from flyweight.config.training import TrainConfig, due, learning_rate_at
from flyweight.data.batch import Batch
from flyweight.engine.display import Display, open_display
from flyweight.engine.ema import Ema
from flyweight.engine.evaluate import merge_states, predict_batches
from flyweight.engine.logs import Logs, NoLogs
from flyweight.engine.optimizer import make_optimizer, set_rate
from flyweight.engine.run import BEST, FINAL, Run
from flyweight.engine.state import (
    Standing,
    load_state,
    load_weights,
    require_same_config,
    save_state,
    state_path,
)
from flyweight.errors import TrainingError

# Lightning announces its start one level below, in spawned processes before code of ours runs; its
# packages share one function for that, which speaks for the package that was imported last.
for _package in ("lightning.fabric", "lightning.pytorch"):
    logging.getLogger(_package).setLevel(logging.WARNING)


def train(fabric: Fabric, run: Run) -> None:
    """Train in this process; the result is the state on disk."""
    if fabric.world_size > 1:
        # What arrives in a spawned process shares its memory with all the others.
        run = replace(run, model=copy.deepcopy(run.model))
    Training(fabric, run).to_the_end()
    fabric.barrier()


class Training:
    """One process's part of a run."""

    def __init__(self, fabric: Fabric, run: Run) -> None:
        self.fabric = fabric
        self.run = run
        self.config = run.config
        self.model = _prepared(run.model, run.config, fabric)
        optimizer = make_optimizer(self.model, run.config)
        self.ema = Ema(self.model, run.config.ema_decay) if run.config.ema_decay else None
        self.wrapped, self.optimizer = fabric.setup(self.model, optimizer)
        if self.ema:
            self.ema.model.to(fabric.device)
        self.standing = Standing()
        if run.resume:
            self._restore(run.resume)

    def to_the_end(self) -> None:
        """Do the steps that are left, then save the last weights."""
        first = self.fabric.is_global_zero
        start, steps = self.standing.step, self.config.steps
        folder = self.run.folder / "logs"
        with (
            Logs(folder, start) if first else NoLogs() as logs,
            open_display(start, steps, self.config.log_every, first=first) as display,
        ):
            if start:
                display.say(f"resumed from '{self.run.resume}' after step {start}/{steps}")
            self._steps(logs, display)
            if self.standing.step < steps:
                display.say(self._early_end())
        self._save_model(FINAL, self.standing.last)
        self._save_state()

    def _steps(self, logs: Logs | NoLogs, display: Display) -> None:
        start = self.standing.step
        with closing(self._batches(start)) as batches:
            for step in range(start, self.config.steps):
                if self._patience_is_over():
                    return
                began = time.monotonic()
                terms = self._optimize(next(batches), step)
                done = self.standing.step = step + 1
                rate = learning_rate_at(self.config, step)
                display.step(done, terms["loss"], rate)
                if due(self.config.log_every, done, self.config.steps):
                    logs.train(done, {**terms, "learning_rate": rate})
                evaluated = self._evaluate_if_due(done, logs, display)
                self.standing.seconds += time.monotonic() - began
                if evaluated or due(self.config.checkpoint_every, done, self.config.steps):
                    self._save_state()

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        given = self.run.loaders.train(start, self.fabric.global_rank, self.fabric.world_size)
        count = 0
        for batch in given:
            yield batch.to(self.fabric.device, non_blocking=True)
            count += 1
        raise TrainingError(
            f"The train loader must yield {self.config.steps - start} batches from step {start} "
            f"on. Received: {count}. Use a loader that begins anew when its images end."
        )

    def _optimize(self, batch: Batch, step: int) -> dict[str, float]:
        set_rate(self.optimizer, learning_rate_at(self.config, step))
        seed_step(self.config.seed, step, self.fabric.global_rank)
        task = self.run.task
        terms = task.loss(task.forward(self.wrapped, batch), batch)
        values = _as_numbers(terms)
        _require_finite(values, step + 1, self.config)
        self.fabric.backward(terms["loss"])
        if self.config.clip_norm:
            self.fabric.clip_gradients(
                self.wrapped,
                self.optimizer,
                max_norm=self.config.clip_norm,
                # Under float16 the scaler meets such gradients, skips the step and goes on.
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model, step)
        return values

    def _evaluate_if_due(self, done: int, logs: Logs | NoLogs, display: Display) -> bool:
        config, standing = self.config, self.standing
        if self.run.loaders.val is None or not due(config.evaluate_every, done, config.steps):
            return False
        standing.last = self._evaluate()
        logs.metrics(done, standing.last)
        display.say(f"step {done}/{config.steps}  {summary(standing.last)}")
        if is_better(standing.last, standing.best, self.run.task.primary):
            standing.best, standing.best_step, standing.idle = standing.last, done, 0
            self._save_model(BEST, standing.last)
        else:
            standing.idle += 1
        return True

    def _evaluate(self) -> dict[str, float]:
        fabric, task, model = self.fabric, self.run.task, self._subject()
        if fabric.world_size > 1:
            # Every process has batch statistics of its own; one model is to be judged.
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
        val = self.run.loaders.val
        share = val(fabric.global_rank, fabric.world_size) if val else ()
        metric = task.metric()
        for batch, predictions in predict_batches(
            model, task, share, precision=self.config.precision, device=fabric.device
        ):
            metric.update(predictions, batch)
        if fabric.world_size == 1:
            numbers = metric.compute()
        else:
            states: list[Any] = [None] * fabric.world_size
            distributed.all_gather_object(states, metric.state())
            numbers = merge_states(task.metric, states) if fabric.is_global_zero else {}
            numbers = fabric.broadcast(numbers)
        return {name: float(value) for name, value in numbers.items()}

    def _subject(self) -> nn.Module:
        return self.ema.model if self.ema else self.model

    def _patience_is_over(self) -> bool:
        return self.config.patience is not None and self.standing.idle >= self.config.patience

    def _early_end(self) -> str:
        return (
            f"stopped after step {self.standing.step}/{self.config.steps}: no better "
            f"{self.run.task.primary} in {self.standing.idle} evaluations "
            f"(best after step {self.standing.best_step})"
        )

    def _save_model(self, name: str, metrics: dict[str, float]) -> None:
        if self.run.save_model and self.fabric.is_global_zero:
            plain = copy.deepcopy(self._subject()).eval()
            plain.to("cpu").to(memory_format=torch.contiguous_format)
            self.run.save_model(plain, metrics, self.run.folder / name)

    def _save_state(self) -> None:
        if self.fabric.is_global_zero:
            tensors = {
                "model": self.model.state_dict(),
                "ema": self.ema.model.state_dict() if self.ema else None,
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            save_state(state_path(self.run.folder), self.config, self.standing, tensors)

    def _restore(self, path: Path) -> None:
        self.standing, document = load_state(path)
        require_same_config(self.config, document["config"], path)
        load_weights(self.model, document["model"], path)
        if self.ema:
            load_weights(self.ema.model, document["ema"], path)
        self.optimizer.load_state_dict(document["optimizer"])
        self.fabric.strategy.precision.load_state_dict(document["precision"])


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make all that is random in a step, like dropout, a function of `(seed, step, rank)`.

    With that a run that resumes at a step draws what an uninterrupted one draws there, whatever
    the loaders have drawn before.
    """
    word = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    torch.manual_seed(word)


def summary(metrics: Mapping[str, float]) -> str:
    """Return the numbers on one line, without those of single classes, which are in the logs.

    Example:
        >>> summary({"map_50": 0.5, "ap/cat": 0.25, "ap/dog": 0.75})
        'map_50 0.5'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)


def is_better(metrics: dict[str, float], best: dict[str, float] | None, primary: str) -> bool:
    """Say whether `metrics` beat `best`; a first evaluation always does.

    An evaluation of nothing has no number, or nan; that never beats anything.
    """
    if best is None:
        return True
    value, record = (numbers.get(primary, math.nan) for numbers in (metrics, best))
    return value > record or (math.isnan(record) and not math.isnan(value))


def _prepared(model: nn.Module, config: TrainConfig, fabric: Fabric) -> nn.Module:
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        # As the originals: statistics of a few images per device would be too rough.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.train()


def _as_numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    # Stacked, because every number fetched alone would make a GPU wait.
    values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _require_finite(values: dict[str, float], step: int, config: TrainConfig) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        # The sum is broken because a term is; the term is what helps.
        name = next((name for name in broken if name != "loss"), "loss")
        raise TrainingError(
            f"Every term of the loss must stay finite. Received {values[name]} in '{name}' at step "
            f"{step} with learning rate {learning_rate_at(config, step - 1):.3g}. Lower "
            "learning_rate, raise warmup_steps, set clip_norm, or use precision '32' or 'bf16'."
        )
