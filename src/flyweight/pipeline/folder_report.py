"""Report of a run folder that training, pruning, exporting or measuring by hand has left."""

import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from flyweight import __version__
from flyweight import checkpoint as checkpoints
from flyweight.checkpoint import Checkpoint
from flyweight.config.settings import Config
from flyweight.config.tasks import TaskConfig
from flyweight.data.records import ImageSet
from flyweight.engine.run import BEST, FINAL
from flyweight.errors import CheckpointError, FileError, counted
from flyweight.graph import Cost
from flyweight.measuring.measure import Measurement
from flyweight.pipeline.belonging import KEPT
from flyweight.pipeline.build_report import (
    metric_name,
    name_of_metric,
    stage_curves,
    with_intervals,
)
from flyweight.pipeline.distillation_outcomes import DISTILLED, regained, with_teacher
from flyweight.pipeline.inputs import load_model, open_checkpoint, open_val, saved_preprocessing
from flyweight.pipeline.network_plans import trace_model
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.quantized_files import FLOAT, QuantizedFiles
from flyweight.pipeline.report_images import report_images
from flyweight.pipeline.report_latencies import latency_quantities
from flyweight.pipeline.report_outcomes import (
    Outcomes,
    class_results,
    confusions,
    outcomes_of,
    precision_recall,
)
from flyweight.pipeline.setting_files import digest_of_checkpoint
from flyweight.pipeline.stages.bench import MEASUREMENTS
from flyweight.pipeline.stages.prune import PLAN
from flyweight.pipeline.stages.quantize import QUANTIZED, TRAINING
from flyweight.progress import Progress
from flyweight.pruning import PruningPlan
from flyweight.report import quantities
from flyweight.report.rows import Quantity, Report, Row, Width
from flyweight.untrusted.file_bytes import read_text

_ROWS = TypeAdapter(tuple[Measurement, ...])
DENSE, PRUNED_BEFORE, PRUNED = "dense", "pruned before", "pruned"
INTEGER = "quantized"
_ORDER = (DENSE, PRUNED_BEFORE, PRUNED, DISTILLED, INTEGER)
"""Names of networks in a report. Weights that were pruned before may have been pruned again."""


@dataclass(frozen=True)
class _Network:
    """A checkpoint of the folder, and the measurements of its export."""

    path: Path
    found: Checkpoint
    exported: Path | None
    measured: tuple[Measurement, ...]


def build_folder_report(folder: Path, config: Config | None, progress: Progress) -> Report:
    """Return the report of the checkpoints in a run folder.

    Args:
        folder: Has checkpoints of `flyweight train`, `flyweight prune` or `flyweight distill`, and
            perhaps exported files and measurements.
        config: The data to evaluate on; None shows only what the folder holds.
        progress: Receives messages and progress.

    Raises:
        FileError: The folder has no checkpoint.
        FlyweightError: A checkpoint or the data is unusable.
    """
    networks = _networks(folder)
    if not networks:
        raise FileError(
            f"A run folder must hold a report or a checkpoint. Received '{folder}' with neither. "
            "Name the folder of a run, such as output/NAME of flyweight train -c NAME."
        )
    together = [row for one in networks.values() for row in one.measured]
    rows = tuple(
        Row(stage=name, quantities=_numbers(one, together)) for name, one in networks.items()
    )
    report = Report(
        title=f"{folder.absolute().name}: {' and '.join(networks)}",
        subject=next(iter(networks.values())).found.origin.architecture,
        created=datetime.datetime.now(datetime.UTC),
        command=shlex.join(["flyweight", *sys.argv[1:]]),
        environment={"flyweight": __version__, "torch": torch.__version__},
        rows=rows,
        widths=_widths(networks),
        curves=tuple(
            curve
            for name, one in networks.items()
            for path in _trained(one.path, name)
            for curve in stage_curves(name, path, metric_name(path, _metric(one.found))[0])
        ),
    )
    return report if config is None else _evaluated(report, networks, folder, config, progress)


def _trained(path: Path, name: str) -> Iterator[Path]:
    """Yield the checkpoint beside which the logs of a network's training are, if there are any."""
    best = path.parent / TRAINING / BEST
    if name != INTEGER:
        yield path
    elif best.is_file():
        yield best


def _evaluated(
    report: Report,
    networks: Mapping[str, _Network],
    folder: Path,
    config: Config,
    progress: Progress,
) -> Report:
    """Return the report with intervals, results by class and images of the validation split."""
    images = open_val(config)
    outcomes = {
        name: outcomes_of(one.path, config, images, name=name, progress=progress)
        for name, one in networks.items()
    }
    models = {name: open_checkpoint(one.path, config) for name, one in networks.items()}
    by_class, notes = class_results(outcomes, images), report.notes
    is_taught = DISTILLED in networks
    taught = (PRUNED, DISTILLED) if is_taught and {DENSE, PRUNED} <= {*networks} else ()
    if taught:
        notes = (regained(by_class, before=PRUNED, after=DISTILLED), *notes)
    if is_taught:
        by_class = with_teacher(by_class, networks[DISTILLED].path)
    changed = {
        "rows": tuple(
            with_intervals(_with_metric(report.rows, outcomes, config, images), outcomes)
        ),
        "images": tuple(report_images(images, models, folder, outcomes, changed=taught)),
        "class_results": by_class,
        "notes": notes,
        "precision_recall": precision_recall(outcomes),
        "confusions": confusions(outcomes, images),
    }
    return report.model_copy(update=changed)


def _with_metric(
    rows: Sequence[Row], outcomes: Mapping[str, Outcomes], config: Config, images: ImageSet
) -> list[Row]:
    """Return the rows with the metric of the config, whichever metric a checkpoint recorded."""
    key = {"classify": "top1", "segment": "miou"}.get(kind_of(config), "")
    label, detail = name_of_metric(key, config.detect.metric)
    method = f"over {counted(len(images), 'image')} of {images.name}"
    found = []
    for row in rows:
        value = outcomes[row.stage].value
        metric = quantities.metric(label, value, detail=detail, method=method)
        # The metric is the first column.
        others = {name: one for name, one in row.quantities.items() if name != "metric"}
        found.append(row.model_copy(update={"quantities": {"metric": metric, **others}}))
    return found


def _networks(folder: Path) -> dict[str, _Network]:
    """Return the checkpoints of a folder: the dense network, the pruned ones, the distilled one."""
    files: list[Path] = []
    for place in (folder / DENSE, folder, folder / PRUNED, folder / DISTILLED):
        names = (KEPT, BEST) if (place / KEPT).is_file() else (BEST,)
        found = [place / name for name in names if (place / name).is_file()]
        files += found or [path for path in (place / FINAL,) if path.is_file()]
    measured = _measurements(folder)
    networks: dict[str, _Network] = {}
    for path in files:
        read = checkpoints.read(path)
        name = PRUNED if read.plans else DENSE
        if read.plans and path.name == KEPT:
            name = PRUNED_BEFORE
        if path.parent == folder / DISTILLED:
            name = DISTILLED
        exported = _exported(folder, name, alone=len(files) == 1)
        rows = tuple(row for row in measured if exported and Path(row.path).name == exported.name)
        networks[name] = _Network(path, read, exported, rows)
    networks |= _quantized(folder, networks, measured)
    return {name: networks[name] for name in _ORDER if name in networks}


def _quantized(
    folder: Path, networks: Mapping[str, _Network], measured: Sequence[Measurement]
) -> dict[str, _Network]:
    """Return the quantized network, and the float one with the export that it is compared with."""
    files = QuantizedFiles(folder / QUANTIZED)
    if not files.checkpoint.is_file() or not files.networks["int8"].is_file():
        return {}
    found = checkpoints.read(files.checkpoint)
    made_of = {parent.digest for parent in found.origin.parents if parent.role == FLOAT}
    networks = {
        name: replace(one, exported=files.networks["float"])
        for name, one in networks.items()
        if files.networks["float"].is_file() and digest_of_checkpoint(one.path) in made_of
    }
    file = files.networks["int8"]
    rows = tuple(row for row in measured if Path(row.path).name == file.name)
    return {**networks, INTEGER: _Network(files.checkpoint, found, file, rows)}


def _exported(folder: Path, name: str, *, alone: bool) -> Path | None:
    names = [f"{name}.onnx", *(["model.onnx"] if alone else [])]
    places = [folder, folder / "export"]
    paths = [place / file for file in names for place in places]
    return next((path for path in paths if path.is_file()), None)


def _measurements(folder: Path) -> tuple[Measurement, ...]:
    path = folder / MEASUREMENTS
    if not path.is_file():
        return ()
    try:
        return _ROWS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FileError(
            f"Measurements must be as flyweight bench --save wrote them. Received '{path}': "
            f"{' '.join(str(error).split())[:160]}. Measure again."
        ) from error


def _numbers(network: _Network, together: Sequence[Measurement]) -> dict[str, Quantity]:
    found, path = network.found, network.path
    numbers: dict[str, Quantity] = {}
    if found.metric_records:
        record = next(iter(found.metric_records.values()))
        label, detail = metric_name(path, _metric(found))
        where = record.data or "the validation split"
        if record.value == record.value:  # Not nan.
            method = f"over {where}"
            numbers["metric"] = quantities.metric(label, record.value, detail=detail, method=method)
    cost, size = _cost(path, found)
    if cost is not None:
        method = f"one image of {size}; 1 MAC = 1 multiply-add"
        numbers["macs"] = quantities.macs(cost.macs, method=method)
        numbers["parameters"] = quantities.parameters(cost.params, method="learnable values")
    if network.exported is not None:
        method = "bytes of the ONNX file"
        numbers["file_size"] = quantities.file_size(network.exported.stat().st_size, method=method)
    else:
        method = "bytes of the checkpoint"
        numbers["file_size"] = quantities.file_size(path.stat().st_size, method=method)
    return numbers | latency_quantities(network.measured, together, size)


def _cost(path: Path, found: Checkpoint) -> tuple[Cost | None, str]:
    """Return the cost of a network and its input size; None for a network of the user's own."""
    try:
        shape = saved_preprocessing(found, path)
        if any(one.kind == "quantize" for one in found.origin.transforms):
            # Those of the float network, which has a row of its own.
            return None, f"{shape.height} x {shape.width}"
        graph = trace_model(load_model(path)[0], shape)
    except CheckpointError:
        return None, "unknown size"
    return graph.cost(), f"{shape.height} x {shape.width}"


def _metric(found: Checkpoint) -> str:
    try:
        return TaskConfig.model_validate(found.notes).detect.metric
    except ValidationError:
        return ""


def _widths(networks: Mapping[str, _Network]) -> tuple[Width, ...]:
    """Return the layers that the plan of the pruned network narrows."""
    pruned = networks.get(PRUNED)
    path = None if pruned is None else pruned.path.parent / PLAN
    if path is None or not path.is_file():
        return ()
    plan = PruningPlan.from_json(read_text(path))
    return tuple(_width_rows(plan))


def _width_rows(plan: PruningPlan) -> Iterator[Width]:
    for name, group in plan.groups.items():
        yield Width(name=name, before=group.channels, after=len(group.keep))
