"""Sensitivity in one pass over the data: what each layer's channels are worth to the metric.

The order of loops is data outside, cuts inside. A batch is decoded once, the dense network runs on
it once, and for every cut only what changes runs again (`suffix`). Every cut has a metric of its
own, fed with what it says of each batch; so the numbers are those of evaluating every pruned
network by itself.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flyweight.engine.display import progress_over
from flyweight.errors import DataError
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import held_tensors
from flyweight.pruning.criteria import Criterion
from flyweight.sensitivity.curves import Point, Sensitivity
from flyweight.sensitivity.cuts import BASELINE, RATIOS, Cut, Cuts, digest_of
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.judge import Judge, Score, judge_of, state_of
from flyweight.sensitivity.variants import Variants
from flyweight.tasks.task import Metric


class ScanOptions(TypedDict, total=False):
    """What else `scan` takes: the fields of `Cuts` besides the ratios, and these two.

    Attributes:
        data: A digest of the data, where one is known; batches are compared in any case.
        progress: Draw a bar on stderr where that is a terminal.
    """

    layers: Sequence[str] | None
    criterion: str | Criterion
    local: bool
    inexact: bool
    aliases: Mapping[str, str] | None
    data: str
    progress: bool


def scan(
    graph: ModelGraph,
    model: nn.Module,
    batches: Iterable[Any],
    metric: Judge | Score,
    *,
    ratios: Sequence[float] = RATIOS,
    save_to: str | Path | None = None,
    **options: Unpack[ScanOptions],
) -> Sensitivity:
    """Return how the metric falls when each layer loses channels, in one pass over `batches`.

    Args:
        graph: `trace(model, ...)`.
        model: What was traced; it is left as it was.
        batches: Each is what `metric` understands. For a function, a tuple whose first item is the
            network's input.
        metric: A task; or a function of outputs and batch that returns a number per picture, whose
            mean over all pictures is the metric.
        ratios: Shares of each layer's channels to remove.
        save_to: File for the curves (JSON). Beside it lies, while the scan lasts, a folder with
            what every batch contributed: a scan that was cut off goes on from there.
        **options: See `ScanOptions` and `Cuts`.

    Raises:
        PlanError: A cut cannot be meant.
        DataError: There are no batches, or the folder is of another scan; the difference is named.
    """
    data, progress = options.pop("data", ""), options.pop("progress", False)
    wanted = Cuts(ratios, **options)  # type: ignore[misc]
    judge = judge_of(metric)
    plans = wanted.plans(graph)
    made_from = {
        "graph": graph.fingerprint,
        "weights": _digest(tensor for _, tensor, _ in held_tensors(model)),
        "data": data,
        "settings": digest_of(plans),
    }
    target = None if save_to is None else Path(save_to)
    journal = Journal(target, made_from)
    work = Variants(graph, model, judge, plans)
    count = 0
    total = len(batches) if isinstance(batches, Sized) else None
    for place, batch in enumerate(progress_over(batches, "scan", total, show=progress)):
        digest = _digest(_tensors(batch))
        if not journal.held(place, digest):
            journal.add(place, digest, _states(work, batch))
        count = place + 1
    if not count:
        raise DataError("A scan must have pictures. Received no batch. Check the data.")
    values = {cut: one[judge.primary] for cut, one in _merged(judge, journal.all(count)).items()}
    curves: dict[str, tuple[Point, ...]] = {}
    for layer, ratio in plans:
        curves[layer] = (*curves.get(layer, ()), Point(ratio, values[layer, ratio]))
    result = Sensitivity(
        metric=judge.primary,
        baseline=values[BASELINE],
        curves=curves,
        criterion=wanted.criterion,
        local=wanted.local,
        made_from=made_from,
        graph=graph,
    )
    if target is not None:
        result.save(target)
    journal.close()
    return result


def _states(work: Variants, batch: Any) -> States:
    found: States = {}

    def take(cut: Cut, outputs: Any) -> None:
        found[cut] = state_of(work.judge, outputs, batch)

    work.outputs(batch, tuple(work.plans), take)
    return {cut: found[cut] for cut in (BASELINE, *work.plans)}


def _merged(judge: Judge, parts: Iterable[States]) -> dict[Cut, dict[str, float]]:
    metrics: dict[Cut, Metric] = {}
    for states in parts:
        for cut, state in states.items():
            if cut not in metrics:
                metrics[cut] = judge.metric()
            metrics[cut].merge(state)
    return {cut: metric.compute() for cut, metric in metrics.items()}


def _tensors(batch: Any) -> Iterator[Tensor]:
    images = getattr(batch, "images", batch)
    yield from (leaf for leaf in tree_leaves(images) if isinstance(leaf, Tensor))


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(str((plain.dtype, tuple(plain.shape))).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
