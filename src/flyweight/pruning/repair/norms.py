"""Statistics of batch normalisations, estimated again after a cut, without labels or gradients.

A cut changes the inputs of every normalisation behind it, whose running statistics still describe
the dense network. Measuring them again is the cheapest repair (EagleEye: Li et al. 2020, arXiv
2007.02491).
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from flyweight.graph.dispatch import evaluating
from flyweight.graph.stored import sharing_copy
from flyweight.replay.lockstep import KEEP_BYTES, Batch, Lockstep, as_batch, watch

_AT_ONCE = 8
"""Number of images that are converted to float64 together."""


def reestimate_norms(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    only: Container[str] | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> tuple[str, ...]:
    """Set the running statistics of every batch normalisation to those of `batches`.

    The statistics are pooled over all images, as if they were one batch: mean, and the unbiased
    variance. Norms are measured in order of execution, in evaluation mode, each with the norms
    before it already measured. So the result is consistent: on the same batches, the inputs of
    every norm have exactly the statistics that it holds. `torch.optim.swa_utils.update_bn`
    normalises by each batch's own statistics instead and averages them, which differs on batches of
    unequal or small size.

    Args:
        model: Changed in place; modes, momentum and counters of its norms stay as they are.
        batches: Input tensors, or tuples of the model's arguments; held in memory together.
        only: Paths of the norms to measure; all of them by default.
        keep_bytes: See `replay.lockstep.Lockstep`.

    Returns:
        The norms that were not measured, with the reason.
    """
    held = [as_batch(batch) for batch in batches]
    norms, skipped = norms_in_order(model, held)
    with evaluating(model):
        steps = Lockstep(sharing_copy(model), held, keep_bytes)
        for path, norm in norms.items():
            if only is None or path in only:
                measure_norm(norm, steps.until(norm.running_mean))  # type: ignore[arg-type]
    return skipped


def norms_in_order(
    model: nn.Module, batches: Sequence[Batch]
) -> tuple[dict[str, _NormBase], tuple[str, ...]]:
    """Return the batch normalisations that can be measured, by path, in order of execution.

    The second value names those that cannot, with the reason.
    """
    tracked = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }
    order: list[str] = []
    means = {
        path: norm.running_mean for path, norm in tracked.items() if norm.running_mean is not None
    }
    with evaluating(model):
        if batches:
            watch(sharing_copy(model), batches[0], means, lambda read: order.append(read.tensor))
    skipped = [f"'{path}' is not reached" for path in tracked if path not in order]
    skipped += [
        f"'{path}' is used more than once" for path in dict.fromkeys(order) if order.count(path) > 1
    ]
    return {path: tracked[path] for path in order if order.count(path) == 1}, tuple(skipped)


def measure_norm(norm: _NormBase, calls: Iterable[Mapping[str, Any]]) -> None:
    """Set the running statistics of `norm` to those of the inputs of all its `calls` together.

    The pairwise update of Chan, Golub and LeVeque (1979) in float64 avoids cancellation.
    """
    device = next(norm.buffers()).device
    count, mean, squares = 0, torch.zeros((), device=device), torch.zeros((), device=device)
    for values in (part for call in calls for part in call["input"].split(_AT_ONCE)):
        rows = values.transpose(0, 1).flatten(1).double()
        batch_mean = rows.mean(1)
        batch_squares = (rows - batch_mean[:, None]).square().sum(1)
        total = count + rows.shape[1]
        gap = batch_mean - mean
        mean = mean + gap * (rows.shape[1] / total)
        squares = squares + batch_squares + gap.square() * (count * rows.shape[1] / total)
        count = total
    if count and norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares / max(count - 1, 1))
