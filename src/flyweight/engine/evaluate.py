"""Evaluation: a model runs over batches, and a metric makes numbers of its predictions."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from flyweight.config.training import Precision
from flyweight.data.batch import Batch
from flyweight.engine.network_errors import network_errors
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.tasks.task import Metric, Task

Batches = Iterable[Batch]
DTYPES = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


def evaluate(
    model: nn.Module,
    task: Task,
    batches: Batches,
    *,
    precision: Precision = "32",
    device: torch.device | str = "auto",
    progress: Progress | bool = False,
) -> dict[str, float]:
    """Return the metrics of `model` over `batches`; fractions in 0..1.

    Args:
        model: Any module that `task` understands; it is returned to its device and modes.
        task: Decoding and metric.
        batches: The images; without any, the result is that of a metric without updates.
        precision: "32", or mixed with "bf16" or "16".
        device: "auto" is a GPU if there is one.
        progress: Receives reports; True draws a bar on stderr where that is a terminal.
    """
    metric = task.metric()
    predicted = predict_batches(model, task, batches, precision=precision, device=device)
    total = len(batches) if isinstance(batches, Sized) else None
    shown = progress_over(predicted, "evaluate", progress_of(progress), total)
    for batch, predictions in shown:
        metric.update(predictions, batch)
    return metric.compute()


def predict_batches(
    model: nn.Module,
    task: Task,
    batches: Batches,
    *,
    precision: Precision = "32",
    device: torch.device | str = "auto",
) -> Iterator[tuple[Batch, Any]]:
    """Yield every batch, on the device, with the predictions that `task.decode` makes.

    Meanwhile the model is in evaluation mode on `device`; when the iterator ends or is closed, the
    model is on its own device again and every module in its own mode.
    """
    target = pick_device(device)
    modes = {module: module.training for module in model.modules()}
    home = next((tensor.device for tensor in model.state_dict().values()), target)
    try:
        model.to(target).eval()
        for batch in batches:
            yield _predict(model, task, batch.to(target, non_blocking=True), precision)
    finally:
        model.to(home)
        for module, training in modes.items():
            module.training = training


def merge_states(make_metric: Callable[[], Metric], states: Iterable[Any]) -> dict[str, float]:
    """Return the metrics of a whole set from the states of metrics that saw shares of it."""
    metric = make_metric()
    for state in states:
        metric.merge(state)
    return metric.compute()


def pick_device(device: torch.device | str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@torch.inference_mode()
def _predict(model: nn.Module, task: Task, batch: Batch, precision: Precision) -> tuple[Batch, Any]:
    dtype = DTYPES[precision]
    device = batch.images.device.type
    with network_errors(batch, "an evaluation"):
        with nullcontext() if dtype is None else torch.autocast(device, dtype):
            outputs = task.forward(model, batch)
        return batch, task.decode(_in_float32(outputs), batch)


def _in_float32(outputs: Any) -> Any:
    return tree_map_only(
        Tensor, lambda one: one.float() if one.is_floating_point() else one, outputs
    )
