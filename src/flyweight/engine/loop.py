"""Training loop, as one process runs it.

`lightning.Fabric` places, wraps, casts, scales and synchronises. The order of actions is written
here, because resuming to the same bits depends on it: optimizer step, average, hooks, logs,
evaluation, best weights, state.
"""

import copy
import logging
import math
import random
import time
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from flyweight.config.training import TrainConfig, due, learning_rate_at
from flyweight.data.batch import Batch
from flyweight.engine.ema import Ema
from flyweight.engine.estimate import first_line, seconds_of_a_step, shown_evaluation
from flyweight.engine.evaluate import merge_states, predict_batches
from flyweight.engine.hooks import Change, restore_hooks
from flyweight.engine.logs import Logs, NoLogs
from flyweight.engine.memory_layout import put_channels_last
from flyweight.engine.network_errors import network_errors
from flyweight.engine.objective import TaskObjective
from flyweight.engine.optimizer import keep_state, make_optimizer, restore_state, set_rate
from flyweight.engine.run import BEST, FINAL, Run
from flyweight.engine.state import (
    RunStatus,
    load_run,
    load_weights,
    require_same_config,
    save_state,
    state_path,
)
from flyweight.errors import CheckpointError, TrainingError
from flyweight.progress import SILENT, ProgressTask, progress_of
from flyweight.stopping import Stopping
from flyweight.untrusted.failures import refusing

# Lightning announces its start with a message of level INFO, in spawned processes even before this
# module runs; its packages share one function for it, which logs as the package imported last.
for _package in ("lightning.fabric", "lightning.pytorch"):
    logging.getLogger(_package).setLevel(logging.WARNING)


def train(fabric: Fabric, run: Run) -> None:
    """Train in this process; the result is the state on disk."""
    if fabric.world_size > 1:
        # Tensors that arrive in a spawned process share their memory with all other processes.
        run = replace(run, model=copy.deepcopy(run.model), objective=copy.deepcopy(run.objective))
    Training(fabric, run).to_the_end()
    fabric.barrier()


class Training:
    """One process's part of a run; a `RunningTraining` for hooks."""

    def __init__(self, fabric: Fabric, run: Run) -> None:
        self.fabric = fabric
        self.run = run
        self.config = run.config
        self.steps = run.config.steps
        self.model = _prepared(run.model, run.config, fabric)
        self.own = None if run.objective.modules is None else run.objective.modules.train()
        self.ema = _average_of(self.model, run.config)
        self.own_ema = _average_of(self.own, run.config) if run.objective.averaged else None
        self.status = RunStatus()
        self.progress = progress_of(run.progress) if fabric.is_global_zero else SILENT
        self.stopping: Stopping | None = None
        self.optimizer = self._new_optimizer()
        saved = self._restore_structure(run.resume) if run.resume else None
        self._set_up()
        if saved is not None:
            self._restore_tensors(saved)

    @property
    def average(self) -> nn.Module | None:
        """The moving average of the model, or None."""
        return self.ema.model if self.ema else None

    def note(self, text: str) -> None:
        """Show one line of text."""
        self.progress.note(text)

    def change_model(self, change: Change) -> None:
        """Apply `change` to model and average; see `RunningTraining.change_model`."""
        self._change(change)
        self._set_up()

    def to_the_end(self) -> None:
        """Do the steps that are left, then save the last weights."""
        start = self.status.step
        folder = self.run.folder / "logs"
        # Several processes would have to agree on the step after which they stop.
        alone = self.fabric.world_size == 1
        stopping: Stopping | nullcontext[None] = Stopping() if alone else nullcontext()
        with (
            stopping as self.stopping,
            Logs(folder, start) if self.fabric.is_global_zero else NoLogs() as logs,
        ):
            task = self.progress.start(
                "step", self.steps, done=start, lines_every=self.config.log_every
            )
            try:
                if start:
                    self.note(f"resumed from '{self.run.resume}' after step {start}/{self.steps}")
                self._steps(logs, task)
                if self._is_asked_to_stop():
                    self.note(f"state saved after step {self.status.step}/{self.steps}")
                elif self.status.step < self.steps:
                    self.note(self._early_end())
            finally:
                task.finish()
        self._save_model(FINAL, self.status.last)
        self._save_state()

    def _steps(self, logs: Logs | NoLogs, task: ProgressTask) -> None:
        start = self.status.step
        with closing(self._batches(start)) as batches:
            first = next(batches) if start < self.steps else None
            if first is not None:
                self._say_what_comes(first)
            for step in range(start, self.steps):
                if self._patience_is_over():
                    return
                began = time.monotonic()
                batch, first = first or next(batches), None
                terms = self._optimize(batch, step)
                done = self.status.step = step + 1
                self.status.add_terms(terms, self.config.log_every)
                for hook in self.run.hooks:
                    hook.after_step(self, done)
                rate = learning_rate_at(self.config, step)
                means = self.status.means
                task.update(done, {**self._epoch(done), "loss": means["loss"], "lr": rate})
                if due(self.config.log_every, done, self.steps):
                    logs.train(done, {**means, "learning_rate": rate})
                evaluated = self._evaluate_if_due(done, logs)
                self.status.seconds += time.monotonic() - began
                stops = self._is_asked_to_stop()
                if stops or evaluated or due(self.config.checkpoint_every, done, self.steps):
                    self._save_state()
                if stops:
                    return

    def _is_asked_to_stop(self) -> bool:
        return self.stopping is not None and self.stopping.asked

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        given = self.run.loaders.train(start, self.fabric.global_rank, self.fabric.world_size)
        count = 0
        for batch in given:
            yield batch.to(self.fabric.device, non_blocking=True)
            count += 1
        raise TrainingError(
            f"The train loader must yield {self.steps - start} batches from step {start} "
            f"on. Received: {count}. Use a loader that starts again when its images end."
        )

    def _epoch(self, done: int) -> dict[str, float]:
        sizes = self.run.loaders.sizes
        return {} if sizes is None else {"epoch": done * self.config.batch_size / sizes.train}

    def _say_what_comes(self, batch: Batch) -> None:
        """Show one line on the run before its first step; nothing where nothing is shown."""
        sizes = self.run.loaders.sizes
        if self.progress is SILENT or sizes is None:
            return
        seconds = None
        if self.fabric.world_size == 1 and type(self.run.objective) is TaskObjective:
            with self.fabric.autocast():
                seconds = seconds_of_a_step(self.model, self.run.task, batch)
        left = self.steps - self.status.step
        self.note(first_line(sizes, self.config, left, self.fabric.device, seconds))

    def _optimize(self, batch: Batch, step: int) -> dict[str, float]:
        seed_step(self.config.seed, step, self.fabric.global_rank)
        for hook in self.run.hooks:
            hook.before_step(self, step)
        set_rate(self.optimizer, learning_rate_at(self.config, step))
        with network_errors(batch, f"step {step + 1}"):
            terms = self.run.objective.loss(self.wrapped, batch)
            values = _as_numbers(terms)
            _require_finite(values, step + 1, self.config)
            self.fabric.backward(terms["loss"])
        if self.config.clip_norm:
            self.fabric.clip_gradients(
                self.wrapped,
                self.wrapped_optimizer,
                max_norm=self.config.clip_norm,
                # Under float16 the scaler meets such gradients, skips the step and continues.
                error_if_nonfinite=False,
            )
        self.wrapped_optimizer.step()
        self.wrapped_optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model, step)
        if self.own_ema and self.own is not None:
            self.own_ema.update(self.own, step)
        return values

    def _evaluate_if_due(self, done: int, logs: Logs | NoLogs) -> bool:
        config, status = self.config, self.status
        if self.run.loaders.val is None or not due(config.evaluate_every, done, config.steps):
            return False
        for hook in self.run.hooks:
            hook.before_evaluation(self, done)
        status.last = self._evaluate()
        for hook in self.run.hooks:
            hook.after_evaluation(self, done, status.last)
        logs.metrics(done, status.last)
        epoch = "".join(f"  epoch {value:.2f}" for value in self._epoch(done).values())
        self.note(f"step {done}/{config.steps}{epoch}  {summary(status.last)}")
        if is_better(status.last, status.best, self.run.task.primary):
            status.best, status.best_step, status.idle = status.last, done, 0
            self._save_model(BEST, status.last)
        else:
            status.idle += 1
        return True

    def _evaluate(self) -> dict[str, float]:
        fabric, task, model = self.fabric, self.run.task, self._evaluated()
        if fabric.world_size > 1:
            # Every process has batch statistics of its own; one model is evaluated.
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)
        val = self.run.loaders.val
        share = val(fabric.global_rank, fabric.world_size) if val else ()
        metric = task.metric()
        predicted = predict_batches(
            model, task, share, precision=self.config.precision, device=fabric.device
        )
        for batch, predictions in shown_evaluation(predicted, share, self.progress):
            metric.update(predictions, batch)
        if fabric.world_size == 1:
            numbers = metric.compute()
        else:
            states: list[Any] = [None] * fabric.world_size
            distributed.all_gather_object(states, metric.state())
            numbers = merge_states(task.metric, states) if fabric.is_global_zero else {}
            numbers = fabric.broadcast(numbers)
        return {name: float(value) for name, value in numbers.items()}

    def _evaluated(self) -> nn.Module:
        """Return the model that is evaluated and saved."""
        return self.ema.model if self.ema else self.model

    def _patience_is_over(self) -> bool:
        return self.config.patience is not None and self.status.idle >= self.config.patience

    def _early_end(self) -> str:
        return (
            f"stopped after step {self.status.step}/{self.steps}: no better "
            f"{self.run.task.primary} in {self.status.idle} evaluations "
            f"(best after step {self.status.best_step})"
        )

    def _new_optimizer(self) -> torch.optim.Optimizer:
        factor = self.run.objective.rate_factor
        return make_optimizer(self.model, self.config, own=self.own, own_factor=factor)

    def _set_up(self) -> None:
        """Wrap model and optimizer for devices and precision; again after every change."""
        learns = self.model if self.own is None else _Together(self.model, self.own)
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(learns, self.optimizer)
        fixed = self.run.objective.fixed
        averages = [average.model for average in (self.ema, self.own_ema) if average]
        for module in averages if fixed is None else [*averages, fixed]:
            module.to(self.fabric.device)
        self.run.objective.attach(self.model)

    def _change(self, change: Change) -> None:
        change(self.model, self.optimizer)
        if self.ema:
            change(self.ema.model, None)
            self.ema.model.eval().requires_grad_(False)
        if self.config.channels_last:
            for module in (self.model, self._evaluated()):
                put_channels_last(module)
        earlier, self.optimizer = self.optimizer, self._new_optimizer()
        keep_state(self.optimizer, earlier)

    def _save_model(self, name: str, metrics: dict[str, float]) -> None:
        if self.run.save_model and self.fabric.is_global_zero:
            plain = copy.deepcopy(self._evaluated()).eval()
            plain.to("cpu").to(memory_format=torch.contiguous_format)
            self.run.save_model(plain, metrics, self.run.folder / name)

    def _save_state(self) -> None:
        if self.fabric.is_global_zero:
            document = {
                "hooks": [(hook.name, hook.state()) for hook in self.run.hooks],
                "model": self.model.state_dict(),
                "ema": _weights_of(self.average),
                "objective": _weights_of(self.own),
                "objective_ema": _weights_of(self.own_ema.model if self.own_ema else None),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            save_state(state_path(self.run.folder), self.config, self.status, document)

    def _restore_structure(self, path: Path) -> dict[str, Any]:
        """Bring model and optimizer into the structure of a saved state; return the state."""
        self.status, document = load_run(path)
        require_same_config(self.config, document["config"], path)
        restore_hooks(self.run.hooks, document["hooks"], path, self._change)
        return document

    def _restore_tensors(self, document: Mapping[str, Any]) -> None:
        path = self.run.resume or state_path(self.run.folder)
        must, remedy = "A training state must fit its run.", "Train again without resume."
        with refusing(CheckpointError, must, f"'{path}'", remedy):
            for key, module in (
                ("model", self.model),
                ("ema", self.average),
                ("objective", self.own),
                ("objective_ema", self.own_ema.model if self.own_ema else None),
            ):
                load_weights(nn.Module() if module is None else module, document[key] or {}, path)
            restore_state(self.optimizer, document["optimizer"], path)
            self.fabric.strategy.precision.load_state_dict(document["precision"])


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make everything random in a step, such as dropout, a function of `(seed, step, rank)`.

    So a run that resumes at a step draws the same numbers as an uninterrupted run, for any numbers
    that the loaders have drawn before.
    """
    word = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(word)
    np.random.seed(word)
    torch.manual_seed(word)


def summary(metrics: Mapping[str, float]) -> str:
    """Return the metrics on one line, without those of single classes, which are in the logs.

    Example:
        >>> summary({"map_50": 0.5, "ap/cat": 0.25, "ap/dog": 0.75})
        'map_50 0.5'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)


def is_better(metrics: dict[str, float], best: dict[str, float] | None, primary: str) -> bool:
    """Return whether `metrics` are better than `best`; those of a first evaluation always are.

    An evaluation without images has no number, or nan, which is never better than another.
    """
    if best is None:
        return True
    value, record = (numbers.get(primary, math.nan) for numbers in (metrics, best))
    return value > record or (math.isnan(record) and not math.isnan(value))


def _prepared(model: nn.Module, config: TrainConfig, fabric: Fabric) -> nn.Module:
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        # As in the originals: statistics of the few images of one device would be too noisy.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if config.channels_last:
        put_channels_last(model)
    return model.train()


def _average_of(model: nn.Module | None, config: TrainConfig) -> Ema | None:
    return Ema(model, config.ema_decay) if model is not None and config.ema_decay else None


def _weights_of(module: nn.Module | None) -> dict[str, Tensor] | None:
    return None if module is None else module.state_dict()


class _Together(nn.Module):
    """A model and the objective's own modules, so that both are synchronised between devices."""

    def __init__(self, model: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.own = own

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the model's outputs."""
        return self.model(*inputs, **options)


def _as_numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    # Stacked, because every number fetched alone would make a GPU wait.
    values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _require_finite(values: dict[str, float], step: int, config: TrainConfig) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        # The sum is not finite because a term is not; naming the term helps more.
        name = next((name for name in broken if name != "loss"), "loss")
        raise TrainingError(
            f"Every term of the loss must stay finite. Received {values[name]} in '{name}' at step "
            f"{step} with learning rate {learning_rate_at(config, step - 1):.3g}. Lower "
            "learning_rate, raise warmup_steps, set clip_norm, or use precision '32' or 'bf16'."
        )
