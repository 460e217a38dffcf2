"""Training of a model for a task, in one process or several; resumes an interrupted run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.engine.hooks import Hook, restore_hooks
from flyweight.engine.objective import Objective, TaskObjective
from flyweight.engine.run import BEST, FINAL, Loaders, Run, SaveModel
from flyweight.engine.state import (
    RunStatus,
    load_run,
    load_weights,
    refuse_old_state,
    remove_states,
    state_path,
)
from flyweight.errors import CheckpointError, ConfigError
from flyweight.folder_lock import FolderLock
from flyweight.on_demand import load
from flyweight.progress import Progress
from flyweight.tasks.task import Task
from flyweight.workspace import LOCK

_LAUNCH = "flyweight.engine.launch:launch"


@dataclass(frozen=True)
class FitResult:
    """The result of a run.

    Attributes:
        best_metrics: Metrics of the best evaluation; None if there was none.
        last_metrics: Metrics of the last evaluation; empty if there was none.
        best_path: Checkpoint of the best evaluation, if one was saved.
        final_path: Checkpoint of the last weights, if one was saved.
        steps: Optimizer steps that were done.
        seconds: Time spent training and evaluating, over all sessions.
    """

    best_metrics: dict[str, float] | None
    last_metrics: dict[str, float]
    best_path: Path | None
    final_path: Path | None
    steps: int
    seconds: float


class FitOptions(TypedDict, total=False):
    """The optional parts of a run. With several devices, all of them must pickle.

    Attributes:
        save_model: Called with a copy of the model on the CPU, the metrics of its evaluation and
            the path to write: `best_model.safetensors` or `model_final.safetensors`.
        objective: What is minimised; by default the task's loss.
        hooks: Code that runs at the steps, in this order.
        progress: Receives reports; True, the default, shows them on stderr.
    """

    save_model: SaveModel | None
    objective: Objective | None
    hooks: Sequence[Hook]
    progress: Progress | bool


def fit(
    model: nn.Module,
    task: Task,
    loaders: Loaders,
    config: TrainConfig,
    *,
    save_dir: Path,
    resume: bool | Path = False,
    **options: Unpack[FitOptions],
) -> FitResult:
    """Train `model` in place; it ends with the last weights, or their average if there is one.

    Args:
        model: The network. It is moved to the device and back.
        task: Loss, decoding and metric.
        loaders: Batches to train and to evaluate on.
        config: The settings.
        save_dir: Gets `state/last.safetensors`, `logs/`, and the files that `save_model` writes.
        resume: True continues from the state in `save_dir`, or starts if there is none; a path
            continues from that state. A resumed run ends with the same bits as one that was never
            interrupted.
        **options: See `FitOptions`.

    Raises:
        ConfigError: There are no such devices, or a resumed run's config differs.
        CheckpointError: The state to resume from is missing, damaged, of another model, or of
            version 0.1.0.
        TrainingError: The loss is not finite, or the training batches end too early.
        FileError: Another run works in `save_dir`, or it cannot be written.
        KeyboardInterrupt: Ctrl-C was pressed. The step that ran was finished and the state saved; a
            second Ctrl-C stops at once.
    """
    unknown = sorted(set(options) - set(FitOptions.__annotations__))
    if unknown:
        raise TypeError(f"fit() got an unexpected keyword argument '{unknown[0]}'")
    with FolderLock(state_path(save_dir).parent / LOCK):
        return _fit(model, task, loaders, config, save_dir=save_dir, resume=resume, **options)


def _fit(
    model: nn.Module,
    task: Task,
    loaders: Loaders,
    config: TrainConfig,
    *,
    save_dir: Path,
    resume: bool | Path,
    **options: Unpack[FitOptions],
) -> FitResult:
    start = _state_to_resume(save_dir, resume)
    objective = options.get("objective") or TaskObjective(task)
    run = Run(
        model=model,
        task=task,
        objective=objective,
        loaders=loaders,
        config=config,
        folder=save_dir,
        resume=start,
        save_model=options.get("save_model"),
        hooks=tuple(options.get("hooks", ())),
        progress=options.get("progress", True),
    )
    devices = _device_count(config)
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        load(_LAUNCH)(run, devices)
    finally:
        for module in (model, objective.modules, objective.fixed):
            if module is not None:
                module.to(home)
        model.to(memory_format=torch.contiguous_format)
    status = _take_results(run, in_other_processes=devices > 1)
    return _result(status, save_dir, saved=run.save_model is not None)


def _take_results(run: Run, *, in_other_processes: bool) -> RunStatus:
    """Load the weights of the last state into the model and the objective's modules."""
    path = state_path(run.folder)
    status, document = load_run(path)
    if in_other_processes:
        # This process's model still has the structure that the run began with.
        restore_hooks(run.hooks, document["hooks"], path, lambda change: change(run.model, None))
    load_weights(run.model, document["ema"] or document["model"], path)
    if run.objective.modules is not None:
        found = document["objective_ema"] or document["objective"]
        load_weights(run.objective.modules, found, path)
    return status


def _device_count(config: TrainConfig) -> int:
    wants_gpu = config.accelerator in ("auto", "cuda")
    gpus = torch.cuda.device_count() if wants_gpu else 0
    if config.accelerator == "cuda" and not gpus:
        raise ConfigError("accelerator 'cuda' needs a CUDA GPU. Received: none. Use 'auto'.")
    if config.precision == "16" and not gpus and config.accelerator != "mps":
        raise ConfigError("precision '16' needs a GPU. Received: none. Use 'bf16' or '32'.")
    if config.devices == "auto":
        return max(gpus, 1)
    if gpus and config.devices > gpus:
        raise ConfigError(
            f"devices must be at most the number of GPUs here ({gpus}). "
            f"Received: {config.devices}. Lower it, or use 'auto'."
        )
    return config.devices


def _state_to_resume(save_dir: Path, resume: bool | Path) -> Path | None:
    own = state_path(save_dir)
    if resume is False:
        # Otherwise a run that is killed before its first state would resume an older run.
        remove_states(save_dir)
        return None
    if resume is True:
        refuse_old_state(save_dir)
        return own if own.exists() else None
    if not resume.is_file():
        raise CheckpointError(
            f"A training state must exist to resume from it. Received: '{resume}'. "
            "Give the path of a state/last.safetensors, or train without resume."
        )
    return resume


def _result(status: RunStatus, save_dir: Path, *, saved: bool) -> FitResult:
    best = save_dir / BEST
    return FitResult(
        best_metrics=status.best,
        last_metrics=status.last,
        best_path=best if saved and status.best is not None and best.exists() else None,
        final_path=save_dir / FINAL if saved else None,
        steps=status.step,
        seconds=status.seconds,
    )
