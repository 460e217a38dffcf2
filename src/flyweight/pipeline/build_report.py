"""Report of a chain: rows, widths, curves and images of its dense and pruned network."""

import csv
import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch

from flyweight import __version__
from flyweight.checkpoint import read
from flyweight.config.settings import Config
from flyweight.errors import FileError, counted
from flyweight.graph import Cost, ModelGraph
from flyweight.measuring.measure import Measurement
from flyweight.pipeline.distillation_curves import (
    NUMBERS,
    TERMS_TITLE,
    similarity_curves,
    terms_in,
)
from flyweight.pipeline.distillation_outcomes import UNTAUGHT, regained, with_teacher
from flyweight.pipeline.inputs import Data, open_checkpoint
from flyweight.pipeline.report_images import report_images
from flyweight.pipeline.report_latencies import latency_quantities
from flyweight.pipeline.report_outcomes import (
    Outcomes,
    class_results,
    confusions,
    precision_recall,
)
from flyweight.pipeline.results import Compared
from flyweight.pruning import PruningPlan
from flyweight.report import quantities
from flyweight.report.class_results import ClassResults
from flyweight.report.rows import Curve, Quantity, Report, ReportImage, Row, Width
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text

_METRICS = {"top1": "Top-1", "miou": "mIoU"}
_METRIC_NAMES = {
    "voc_11point": "VOC 11-point",
    "voc_area": "VOC area",
    "coco": "COCO",
    "wider": "faces, hard",
}


@dataclass(frozen=True)
class ReportedNetwork:
    """A network of the report: its checkpoint, its export and the export's measurements."""

    name: str
    checkpoint: Path
    exported: Path
    measured: tuple[Measurement, ...]


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report is made from.

    Attributes:
        name: Of the run.
        config: Settings of data and task.
        data: Its validation split is shown.
        folder: Of the run.
        plan: What was cut.
        graph: Of the dense network.
        networks: The dense network first, the last one of the chain last.
        comparison: Further rows, where there are some.
        outcomes: Of the networks by name, and of the student before its distillation.
        untaught: Checkpoint of that student; None without a distillation.
    """

    name: str
    config: Config
    data: Data
    folder: Path
    plan: PruningPlan
    graph: ModelGraph
    networks: tuple[ReportedNetwork, ...]
    comparison: Compared | None = None
    outcomes: Mapping[str, Outcomes] | None = None
    untaught: Path | None = None


def build_report(inputs: ReportInputs) -> Report:
    """Return the report; its images are written into the run folder."""
    costs = (inputs.graph.cost(), inputs.plan.cost(inputs.graph))
    rows = tuple(
        Row(stage=stage.name, quantities=_quantities(inputs, stage, cost))
        for stage, cost in zip(inputs.networks, costs, strict=True)
    )
    outcomes = inputs.outcomes or {}
    rows = tuple(with_intervals(rows, outcomes))
    if inputs.comparison is not None:
        rows = tuple(_compared(inputs.comparison, rows))
    first = inputs.networks[0].measured[0].environment
    by_class, taught = _by_class(inputs, outcomes)
    return Report(
        title=f"{inputs.name}: dense and pruned",
        subject=inputs.name,
        created=datetime.datetime.now(datetime.UTC),
        command=shlex.join(["flyweight", *sys.argv[1:]]),
        environment={
            "processor": first.cpu,
            "flyweight": __version__,
            "torch": torch.__version__,
            **{name: str(version) for name, version in first.runtimes.items()},
        },
        rows=rows,
        widths=_widths(inputs),
        curves=tuple(_curves(inputs)),
        images=tuple(_images(inputs)),
        class_results=by_class,
        precision_recall=precision_recall(outcomes),
        confusions=confusions(outcomes, inputs.data.val),
        notes=(*taught, *_notes(inputs)),
    )


def _by_class(
    inputs: ReportInputs, outcomes: Mapping[str, Outcomes]
) -> tuple[ClassResults | None, tuple[str, ...]]:
    """Return the metric of every class, and notes on what a distillation did to it."""
    if not outcomes:
        return None, ()
    found, last = class_results(outcomes, inputs.data.val), inputs.networks[-1]
    if inputs.untaught is None:
        return found, ()
    note = regained(found, before=UNTAUGHT, after=last.name)
    return with_teacher(found, last.checkpoint), (note,)


def _quantities(inputs: ReportInputs, stage: ReportedNetwork, cost: Cost) -> dict[str, Quantity]:
    config = inputs.config
    size = f"{config.preprocessing.height} x {config.preprocessing.width}"
    value = _primary(stage)
    label, detail = metric_name(stage.checkpoint, config.detect.metric)
    where = f"{counted(len(inputs.data.val), 'image')} of {inputs.data.val.name}"
    found = {
        "metric": quantities.metric(label, value, detail=detail, method=f"over {where}"),
        "macs": quantities.macs(cost.macs, method=f"one image of {size}; 1 MAC = 1 multiply-add"),
        "parameters": quantities.parameters(cost.params, method="learnable values"),
        "file_size": quantities.file_size(
            stage.exported.stat().st_size, method="bytes of the ONNX file, float32"
        ),
    }
    together = [row for network in inputs.networks for row in network.measured]
    found |= latency_quantities(stage.measured, together, size)
    memory = [row.peak_bytes for row in stage.measured if row.peak_bytes is not None]
    if memory:
        method = "peak resident memory of the measuring process, 1 thread"
        found["memory"] = quantities.peak_memory(memory[0], method=method)
    return found


def with_intervals(rows: Sequence[Row], outcomes: Mapping[str, Outcomes]) -> Iterator[Row]:
    """Yield rows whose metric is that of the outcomes, with intervals from resampled images."""
    first = outcomes.get(rows[0].stage)
    for row in rows:
        found = outcomes.get(row.stage)
        if found is None or "metric" not in row.quantities:
            yield row
            continue
        low, high = found.interval or (None, None)
        difference = None if first is None or found is first else first.difference(found)
        changed = {
            "value": found.value,
            "low": None if low is None else min(low, found.value),
            "high": None if high is None else max(high, found.value),
            "difference": difference,
        }
        metric = row.quantities["metric"].model_copy(update=changed)
        yield row.model_copy(update={"quantities": {**row.quantities, "metric": metric}})


def _compared(comparison: Compared, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row per compared network; one that was not exported has no size and no latency."""
    known = {row.stage: row.quantities for row in rows}
    for network in comparison.networks:
        found = dict(known[network.like])
        if network.name not in known:
            found = {key: found[key] for key in ("metric", "macs", "parameters")}
        changed: dict[str, object] = {
            "value": network.metric,
            "difference": network.difference,
        }
        if found["metric"].value != network.metric:
            changed |= {"low": None, "high": None}
        found["metric"] = found["metric"].model_copy(update=changed)
        yield Row(stage=network.name, quantities=found)


def _primary(stage: ReportedNetwork) -> float:
    metrics = read(stage.checkpoint).metrics
    return next(iter(metrics.values()), 0.0)


def metric_name(checkpoint: Path, metric: str) -> tuple[str, str]:
    """Return the usual name of the metric, and which of its kinds it is.

    Args:
        checkpoint: Has the metrics, the main one first.
        metric: Of a detector's settings.
    """
    return name_of_metric(next(iter(read(checkpoint).metrics), ""), metric)


def name_of_metric(key: str, metric: str) -> tuple[str, str]:
    """Return the usual name of a metric, and which of its kinds it is.

    Args:
        key: What the task calls the metric; any for detectors.
        metric: Of a detector's settings.

    Example:
        >>> name_of_metric("top1", ""), name_of_metric("map", "coco")
        (('Top-1', ''), ('mAP', 'COCO'))
    """
    if key in _METRICS:
        return _METRICS[key], ""
    return "mAP", _METRIC_NAMES.get(metric, metric)


def _widths(inputs: ReportInputs) -> tuple[Width, ...]:
    """Return all layers in the order of the network, including those that were not cut."""
    kept = {name: len(group.keep) for name, group in inputs.plan.groups.items()}
    return tuple(
        Width(name=name, before=group.size, after=kept.get(name, group.size))
        for name, group in inputs.graph.groups.items()
    )


def _notes(inputs: ReportInputs) -> tuple[str, ...]:
    busy = sorted(
        {note for stage in inputs.networks for row in stage.measured for note in row.notes}
    )
    return (
        f"Channels were chosen by {inputs.plan.criterion}; the plan is in pruned/plan.json.",
        "Exports agree with PyTorch on random inputs and on images of the validation split.",
        *busy,
    )


def _curves(inputs: ReportInputs) -> Iterator[Curve]:
    for stage in inputs.networks:
        name = metric_name(stage.checkpoint, inputs.config.detect.metric)[0]
        yield from stage_curves(stage.name, stage.checkpoint, name)


def stage_curves(stage: str, checkpoint: Path, metric: str) -> Iterator[Curve]:
    """Yield the curves of the loss and of the metric that a training logged.

    Of a distillation, the terms of its loss and the similarity of features follow.

    Args:
        stage: Name of the lines.
        checkpoint: Of the training; its logs are beside it.
        metric: Name of the main metric.
    """
    logs = checkpoint.parent / "logs"
    yield from _curve(logs / "train.csv", "loss", "Training loss", stage, "loss")
    column = next(iter(read(checkpoint).metrics), "")
    yield from _curve(logs / "metrics.csv", column, metric, stage, "fraction")
    for term in terms_in(logs / "train.csv"):
        yield from _curve(logs / "train.csv", term, TERMS_TITLE, term, "loss")
    yield from similarity_curves(checkpoint.parent / NUMBERS)


def _curve(path: Path, column: str, name: str, series: str, unit: str) -> Iterator[Curve]:
    if not path.is_file():
        return
    remedy = "Remove the file to leave the curve out."
    with refusing(FileError, "A log must be as training wrote it.", f"'{path}'", remedy):
        rows = [row for row in csv.DictReader(StringIO(read_text(path))) if row.get(column)]
        if not rows:
            return
        steps, values = ([float(row[key]) for row in rows] for key in ("step", column))
        curve = Curve(name=name, series=series, x=tuple(steps), y=tuple(values), unit=unit)
    yield curve


def _images(inputs: ReportInputs) -> Iterator[ReportImage]:
    """Draw ground truth and what each network finds on chosen images of the validation split."""
    files = {stage.name: stage.checkpoint for stage in inputs.networks}
    changed: tuple[str, ...] = ()
    if inputs.untaught is not None:
        last = inputs.networks[-1].name
        taught = files.pop(last)
        files |= {UNTAUGHT: inputs.untaught, last: taught}
        changed = (UNTAUGHT, last) if inputs.outcomes else ()
    models = {name: open_checkpoint(path, inputs.config) for name, path in files.items()}
    data, folder = inputs.data.val, inputs.folder
    return report_images(data, models, folder, inputs.outcomes, changed=changed)
