"""Sensitivity in one pass over the data: what each layer's channels are worth to the metric.

The order of loops is data outside, cuts inside. A batch is decoded once, the dense network runs on
it once, and for every cut only what changes runs again (`suffix`). Every cut has a metric of its
own, fed with what it says of each batch; so the numbers are those of evaluating every pruned
network by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import nn

from flyweight.digests import digest_of_batch, digest_of_tensors
from flyweight.errors import DataError, PlanError
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.stored import held_tensors
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.pruning.criteria import Criterion
from flyweight.sensitivity.agreement import Agreement, Kind
from flyweight.sensitivity.cluster import Cluster
from flyweight.sensitivity.curves import Sensitivity
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.evaluator import Evaluator, Mean, Score, state_of
from flyweight.sensitivity.fast.decisions import FastScanSettings
from flyweight.sensitivity.fast.scan import FastScan
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.measured_curves import Point
from flyweight.sensitivity.scanned_cuts import BASELINE, RATIOS, Cuts, LayerCut, digest_of
from flyweight.tasks.task import Metric


class ScanOptions(TypedDict, total=False):
    """What else `scan` takes: the fields of `Cuts` besides the ratios, and these.

    Attributes:
        fast: Look at as few images and ratios as this asks for, and give intervals. None looks at
            all.
        ray: Address of a Ray cluster to spread the batches over; see `Cluster`. Not with `fast`.
        data: A digest of the data, where one is known; batches are compared in any case.
        measured_on: The data, in words, for whoever reads the curves.
        progress: Receives reports; True draws a bar on stderr where that is a terminal.
    """

    layers: Sequence[str] | None
    criterion: str | Criterion
    local: bool
    inexact: bool
    aliases: Mapping[str, str] | None
    fast: FastScanSettings | None
    ray: str
    data: str
    measured_on: str
    progress: Progress | bool


def scan(
    graph: ModelGraph,
    model: nn.Module,
    batches: Iterable[Any],
    metric: Evaluator | Score | Kind,
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
        metric: A task; or a function of outputs and batch that returns a number per image, whose
            mean over all images is the metric; or, without labels, `"kl"` or `"feature_error"`:
            see `Agreement`, and know that it is weaker.
        ratios: Shares of each layer's channels to remove.
        save_to: File for the curves (JSON). Beside it lies, while the scan lasts, a folder with
            what every batch contributed: a scan that was cut off goes on from there.
        **options: See `ScanOptions` and `Cuts`.

    Raises:
        PlanError: A cut cannot be meant.
        ConfigError: The cluster cannot be reached.
        DataError: There are no batches, or the folder is of another scan; the difference is named.
    """
    fast, ray = options.pop("fast", None), options.pop("ray", "")
    if fast is not None and ray:
        raise PlanError(
            "A scan must be fast or spread over a cluster. Received both. Leave one of them out."
        )
    measured_on = options.pop("measured_on", "")
    data, progress = options.pop("data", ""), progress_of(options.pop("progress", False))
    wanted = Cuts(ratios, **options)  # type: ignore[misc]
    evaluator = _evaluator_of(metric)
    plans = wanted.plans(graph)
    made_from = {
        "graph": graph.fingerprint,
        "weights": digest_of_tensors(tensor for _, tensor, _ in held_tensors(model)),
        "data": data,
        "settings": digest_of(plans) + ("" if fast is None else "-by-picture"),
    }
    target = None if save_to is None else Path(save_to)
    journal = Journal(target, made_from)
    work = CutRunner(graph, model, evaluator, plans)

    def watch(items: Iterable[Any], label: str) -> Iterable[Any]:
        return progress_over(items, label, progress)

    with journal.locked():
        if fast is None:
            baseline, curves = _whole(work, journal, watch(batches, "scan"), ray)
        else:
            hurried = FastScan.of(work, journal, fast)
            hurried.run(batches, watch)
            baseline, curves = hurried.race.baseline, hurried.curves()
        result = Sensitivity(
            metric=evaluator.primary,
            baseline=baseline,
            curves=curves,
            criterion=wanted.criterion,
            local=wanted.local,
            measured_on=measured_on,
            made_from=made_from,
            graph=graph,
        )
        if target is not None:
            result.save(target)
        journal.close()
    return result


def _whole(
    work: CutRunner, journal: Journal, batches: Iterable[Any], ray: str
) -> tuple[float, dict[str, tuple[Point, ...]]]:
    """Return the metric before any cut and the curves, over all images."""
    count = 0
    if ray:
        count = Cluster(ray).fill(journal, work, batches, _states)
    else:
        for place, batch in enumerate(batches):
            digest = digest_of_batch(batch)
            if not journal.held(place, digest):
                journal.add(place, digest, _states(work, batch))
            count = place + 1
    if not count:
        raise DataError("A scan must have images. Received no batch. Check the data.")
    numbers = _merged(work.evaluator, journal.all(count))
    values = {cut: one[work.evaluator.primary] for cut, one in numbers.items()}
    curves: dict[str, tuple[Point, ...]] = {}
    for layer, ratio in work.plans:
        curves[layer] = (*curves.get(layer, ()), Point(ratio, values[layer, ratio]))
    return values[BASELINE], curves


def _states(work: CutRunner, batch: Any) -> States:
    found: States = {}

    def take(cut: LayerCut, outputs: Any) -> None:
        found[cut] = state_of(work.evaluator, outputs, batch)

    work.outputs(batch, tuple(work.plans), take)
    return {cut: found[cut] for cut in (BASELINE, *work.plans)}


def _merged(evaluator: Evaluator, parts: Iterable[States]) -> dict[LayerCut, dict[str, float]]:
    metrics: dict[LayerCut, Metric] = {}
    for states in parts:
        for cut, state in states.items():
            if cut not in metrics:
                metrics[cut] = evaluator.metric()
            metrics[cut].merge(state)
    return {cut: metric.compute() for cut, metric in metrics.items()}


def _evaluator_of(metric: Evaluator | Score | Kind) -> Evaluator:
    if isinstance(metric, str):
        return Agreement(metric)
    return metric if hasattr(metric, "decode") else Mean(metric)  # type: ignore[return-value]
