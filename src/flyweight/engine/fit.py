"""Train a model for a task, in one process or several, and resume where a run was cut off."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

import flyweight.errors
from flyweight.config.training import TrainConfig
from flyweight.engine.run import BEST, FINAL, Loaders, Run, SaveModel
from flyweight.engine.state import Standing, load_state, load_weights, state_path
from flyweight.errors import CheckpointError, ConfigError, FlyweightError
from flyweight.tasks.task import Task


@dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        best_metrics: Numbers of the best evaluation; None if there was none.
        last_metrics: Numbers of the last evaluation; empty if there was none.
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


def fit(
    model: nn.Module,
    task: Task,
    loaders: Loaders,
    config: TrainConfig,
    *,
    save_dir: Path,
    resume: bool | Path = False,
    save_model: SaveModel | None = None,
) -> FitResult:
    """Train `model` in place; it ends with the last weights (their average, if there is one).

    Args:
        model: What trains. It is moved to the device and comes back to where it was.
        task: Loss, decoding and metric.
        loaders: Batches to train and to evaluate on.
        config: How to train.
        save_dir: Gets `state/last.ckpt`, `logs/`, and what `save_model` writes.
        resume: True goes on from `save_dir`'s state, or starts if there is none; a path goes on
            from that state. A run that goes on ends with the same bits as one never interrupted.
        save_model: Called with a copy of the model on the CPU, the numbers of its evaluation and
            the path to write: `best_model.safetensors` or `model_final.safetensors`.

    Raises:
        ConfigError: There are no such devices, or a resumed run's config differs.
        CheckpointError: The state to resume from is missing, damaged or of another model.
        TrainingError: The loss is not finite, or the training batches end too early.
    """
    from flyweight.engine._loop import train

    start = _state_to_resume(save_dir, resume)
    run = Run(model, task, loaders, config, save_dir, start, save_model)
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    count = _device_count(config)
    try:
        _launch(partial(train, run=run), config, count)
    finally:
        model.to(home).to(memory_format=torch.contiguous_format)
    standing, document = load_state(state_path(save_dir))
    load_weights(model, document["ema"] or document["model"], state_path(save_dir))
    return _result(standing, save_dir, saved=save_model is not None)


def _launch(function: Callable[..., None], config: TrainConfig, count: int) -> None:
    from lightning.fabric import Fabric
    from torch.multiprocessing.spawn import ProcessRaisedException

    fabric = Fabric(
        accelerator=config.accelerator,
        devices=count,
        strategy="auto" if count == 1 else "ddp_spawn",
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[config.precision],  # type: ignore[arg-type]
    )
    try:
        fabric.launch(function)
    except ProcessRaisedException as error:
        raise _as_own(error) from error


def _as_own(error: Exception) -> Exception:
    """Return the error of ours that ended another process, or `error` itself."""
    found = re.search(r"^flyweight\.errors\.(\w+): (.*)", str(error), re.MULTILINE)
    kind = vars(flyweight.errors).get(found[1]) if found else None
    if found and isinstance(kind, type) and issubclass(kind, FlyweightError):
        return kind(found[2])
    return error


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
        # Else a run that is killed before its first state would go on from an older run's.
        own.unlink(missing_ok=True)
        return None
    if resume is True:
        return own if own.exists() else None
    if not resume.is_file():
        raise CheckpointError(
            f"A training state must exist to resume from it. Received: '{resume}'. "
            "Give the path of a state/last.ckpt, or train without resume."
        )
    return resume


def _result(standing: Standing, save_dir: Path, *, saved: bool) -> FitResult:
    best = save_dir / BEST
    return FitResult(
        best_metrics=standing.best,
        last_metrics=standing.last,
        best_path=best if saved and standing.best is not None and best.exists() else None,
        final_path=save_dir / FINAL if saved else None,
        steps=standing.step,
        seconds=standing.seconds,
    )
