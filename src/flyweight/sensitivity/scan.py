"""Sensitivity scan: the metric after cuts of every layer, in one pass over the data.

The loop over the data is outside, the loop over cuts inside. A batch is decoded once, the dense
network runs on it once, and for every cut only the part of the network that changes runs again
(`replay.suffix`). Every cut has a metric of its own, which receives the cut's outputs for each
batch. So the numbers are those of evaluating every pruned network separately.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from torch import nn

from flyweight.digests import digest_of_batch
from flyweight.errors import DataError, PlanError
from flyweight.graph.entry import plain_module
from flyweight.graph.model_graph import ModelGraph
from flyweight.progress import Progress, progress_of, progress_over
from flyweight.pruning.criteria import Criterion
from flyweight.pruning.plans import PruningPlan
from flyweight.sensitivity.agreement import Agreement, Kind
from flyweight.sensitivity.cluster import Cluster
from flyweight.sensitivity.curves import Sensitivity
from flyweight.sensitivity.cut_runner import CutRunner
from flyweight.sensitivity.evaluator import Evaluator, Mean, Score, state_of
from flyweight.sensitivity.fast.decisions import FastScanSettings
from flyweight.sensitivity.fast.scan import FastScan
from flyweight.sensitivity.journal import Journal, States
from flyweight.sensitivity.made_from import facts_of
from flyweight.sensitivity.measured_curves import Point, require_baseline
from flyweight.sensitivity.scanned_cuts import BASELINE, RATIOS, Cuts, LayerCut, digest_of

if TYPE_CHECKING:  # Tasks import PIL, which a dry run does not need.
    from flyweight.tasks.task import Metric


class ScanOptions(TypedDict, total=False):
    """Further options of `scan`: the fields of `Cuts` besides the ratios, and the following.

    Attributes:
        fast: Measure only as many images and ratios as this precision needs, with intervals. None
            measures all images and ratios.
        ray: Address of a Ray cluster that measures the batches; see `Cluster`. Not with `fast`.
        data: A digest of the data, where one is known; batches are compared in any case.
        made_with: What the numbers depend on besides, as text by name; recorded with the curves.
        measured_on: A description of the data, which is shown with the curves.
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
    made_with: Mapping[str, str]
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
        model: The traced network; it is not changed.
        batches: Batches in the form that `metric` takes. For a function, tuples whose first item
            is the network's input.
        metric: A task; or a function of outputs and batch that returns a number per image, whose
            mean over all images is the metric; or, without labels, `"kl"` or `"feature_error"`,
            which are weaker: see `Agreement`.
        ratios: Shares of each layer's channels to remove.
        save_to: File for the curves (JSON). During the scan, a folder beside it holds the results
            of every batch, from which an interrupted scan is resumed.
        **options: See `ScanOptions` and `Cuts`.

    Raises:
        PlanError: A cut is unknown or invalid.
        ConfigError: The cluster cannot be reached.
        DataError: There are no batches, the metric before any cut is not above 0, or the folder is
            of another scan; the difference is named.
    """
    fast, ray = options.pop("fast", None), options.pop("ray", "")
    _require_one_of(fast, ray)
    measured_on = options.pop("measured_on", "")
    data, progress = options.pop("data", ""), progress_of(options.pop("progress", False))
    made_with = options.pop("made_with", {})
    wanted = Cuts(ratios, **options)  # type: ignore[misc]
    evaluator = _evaluator_of(metric)
    plans = wanted.plans(graph)
    model = plain_module(model)
    made_from = {**made_with, **_made_from(graph, model, data, plans, fast)}
    target = None if save_to is None else Path(save_to)
    journal = Journal(target, made_from)
    runner = CutRunner(graph, model, evaluator, plans)
    with journal.locked():
        baseline, curves = _measured(runner, journal, batches, fast or ray, progress)
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


_STATES_BY_IMAGE = "-by-picture"
"""Marks the settings of a fast scan, whose journal has a state per image. Written by 0.1.0 too."""
_NO_FASTER = 0.5
"""Share of an exact scan's evaluations from which a fast scan is reported as no faster: those of an
exact scan are cheaper, because all ratios of a layer share one run."""
_Curves = dict[str, tuple[Point, ...]]


def _measured(
    runner: CutRunner,
    journal: Journal,
    batches: Iterable[Any],
    how: FastScanSettings | str,
    progress: Progress,
) -> tuple[float, _Curves]:
    """Return the metric before any cut and the curves.

    Args:
        runner: Runs the cuts.
        journal: Stores what is measured.
        batches: What they run on.
        how: The precision of a fast scan, or the address of a cluster; may be empty.
        progress: Receives reports.

    Raises:
        DataError: The metric before any cut is 0, or there are no batches.
    """
    if not journal.begun:
        _require_working(runner, batches)
    if isinstance(how, str):
        baseline, curves = _exact_scan(runner, journal, batches, how, progress)
    else:
        baseline, curves = _fast_scan(runner, journal, batches, how, progress)
    _require_baseline(runner.evaluator, baseline)
    return baseline, curves


def _require_one_of(fast: FastScanSettings | None, ray: str) -> None:
    if fast is not None and ray:
        raise PlanError(
            "A scan is either fast or spread over a cluster. Received both. Leave one of them out."
        )


def _made_from(
    graph: ModelGraph,
    model: nn.Module,
    data: str,
    plans: Mapping[LayerCut, PruningPlan],
    fast: FastScanSettings | None,
) -> dict[str, str]:
    """Return what the numbers depend on, by name; see `made_from`."""
    return {
        **facts_of(graph, model),
        "data": data,
        "settings": digest_of(plans) + ("" if fast is None else _STATES_BY_IMAGE),
    }


def _require_working(runner: CutRunner, batches: Iterable[Any]) -> None:
    """Refuse a network whose metric before any cut is 0, before any cut is measured.

    The dense network runs until its metric is above 0: on one batch where it works. Batches that
    can be iterated only once are left alone; their metric is checked at the end.
    """
    if isinstance(batches, Iterator):
        return
    evaluator, count = runner.evaluator, 0
    metric, value = evaluator.metric(), 0.0
    for count, batch in enumerate(batches, 1):

        def take(_: LayerCut, outputs: Any, batch: Any = batch) -> None:
            metric.update(evaluator.decode(outputs, batch), batch)

        runner.outputs(batch, (), take)
        if count & (count - 1) == 0:  # 1, 2, 4, 8: some metrics take long to compute
            value = metric.compute()[evaluator.primary]
        if value > 0 or _may_be_negative(evaluator, value):
            return
    if count:
        _require_baseline(evaluator, metric.compute()[evaluator.primary])


def _require_baseline(evaluator: Evaluator, value: float) -> None:
    """Refuse a metric of 0 before any cut."""
    if not _may_be_negative(evaluator, value):
        require_baseline(evaluator.primary, value)


def _may_be_negative(evaluator: Evaluator, value: float) -> bool:
    """Say whether this is a number below 0 of a function of the user's own."""
    return isinstance(evaluator, Mean) and value < 0


def _fast_scan(
    runner: CutRunner,
    journal: Journal,
    batches: Iterable[Any],
    fast: FastScanSettings,
    progress: Progress,
) -> tuple[float, _Curves]:
    """Return the metric before any cut and the curves, as precise as `fast` asks for."""
    scan_in_steps = FastScan.of(runner, journal, fast)
    scan_in_steps.run(batches, lambda items, label: progress_over(items, label, progress))
    share = scan_in_steps.share_of_exact()
    if share >= _NO_FASTER:
        progress.note(
            f"note: the fast mode evaluated {share:.0%} of all cuts and images, because there are "
            "few images; the exact mode takes about as long, and its numbers are exact"
        )
    return scan_in_steps.race.baseline, scan_in_steps.curves()


def _exact_scan(
    runner: CutRunner, journal: Journal, batches: Iterable[Any], ray: str, progress: Progress
) -> tuple[float, _Curves]:
    """Return the metric before any cut and the curves, over all images."""
    count = 0
    batches = progress_over(batches, "scan", progress)
    if ray:
        count = Cluster(ray).fill(journal, runner, batches, _states)
    else:
        for place, batch in enumerate(batches):
            digest = digest_of_batch(batch)
            if not journal.held(place, digest):
                journal.add(place, digest, _states(runner, batch))
            count = place + 1
    if not count:
        raise DataError("A scan must have images. Received no batch. Check the data.")
    numbers = _merged(runner.evaluator, journal.all(count))
    values = {cut: one[runner.evaluator.primary] for cut, one in numbers.items()}
    curves: _Curves = {}
    for layer, ratio in runner.plans:
        curves[layer] = (*curves.get(layer, ()), Point(ratio, values[layer, ratio]))
    return values[BASELINE], curves


def _states(runner: CutRunner, batch: Any) -> States:
    found: States = {}

    def take(cut: LayerCut, outputs: Any) -> None:
        found[cut] = state_of(runner.evaluator, outputs, batch)

    runner.outputs(batch, tuple(runner.plans), take)
    return {cut: found[cut] for cut in (BASELINE, *runner.plans)}


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
