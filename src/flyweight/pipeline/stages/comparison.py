"""Comparison stage: the networks of a chain on the same images, with intervals of differences."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from flyweight.config.settings import Config
from flyweight.data.records import BoxSet
from flyweight.digests import digest_of_value
from flyweight.engine.evaluate import predict_batches
from flyweight.errors import FileError
from flyweight.files import write_text
from flyweight.pipeline.inputs import Data, load_model, task_of, val_batches
from flyweight.pipeline.results import Compared, ComparedNetwork, Pruned, Trained, pruned_checkpoint
from flyweight.pipeline.stage import INPUT, LOADING, NETWORK, TASKS, Inputs, Stage
from flyweight.pipeline.stages.prune import PRUNE
from flyweight.tasks.metrics.box_intervals import resampled_metric
from flyweight.tasks.metrics.voc_intervals import difference_interval, draw_images
from flyweight.tasks.metrics.voc_map import Floats
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json
from flyweight.workspace import Workspace

FILE = "comparison.json"
DENSE, PRUNED = "dense", "pruned"
CONTROL_NAME = "dense, fine-tuned (control)"
UNTUNED_NAME = "pruned, not fine-tuned"


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Compared:
    found: list[ComparedNetwork] = []
    first: Floats | None = None
    for name, (like, path) in _checkpoints(inputs).items():
        metric, resampled = _evaluated(path, settings, inputs.splits)
        interval = None
        if first is None:
            first = resampled
        elif resampled is not None:
            interval = difference_interval(first, resampled)
        found.append(ComparedNetwork(name, like, metric, interval))
        inputs.progress.note(_line(found[-1]))
    compared = Compared(tuple(found))
    write_text(workspace.folder / FILE, json.dumps(asdict(compared), indent=2) + "\n")
    return compared


def _checkpoints(inputs: Inputs) -> Mapping[str, tuple[str, Path]]:
    """Return name to structure and file of every network, the dense one first."""
    dense: Trained = inputs.results["train"]
    control: Trained = inputs.results["control"]
    pruned: Pruned = inputs.results["prune"]
    return {
        DENSE: (DENSE, dense.checkpoint),
        CONTROL_NAME: (DENSE, control.checkpoint),
        UNTUNED_NAME: (PRUNED, pruned.checkpoint.parent / PRUNE.options.cut_file),
        PRUNED: (PRUNED, pruned_checkpoint(inputs.results)),
    }


def _line(found: ComparedNetwork) -> str:
    line = f"{found.name}: {100 * found.metric:.2f} %"
    if found.difference is None:
        return line
    low, high = (100 * end for end in found.difference)
    return f"{line}, {low:+.2f} to {high:+.2f} points against {DENSE}"


def _evaluated(path: Path, settings: Config, data: Data) -> tuple[float, Floats | None]:
    """Return the main metric of a checkpoint, and its values on resampled images."""
    model, _ = load_model(path, settings)
    task = task_of(model, data.labels, settings)
    metric = task.metric()
    for batch, predictions in predict_batches(model, task, val_batches(settings, data.val)):
        metric.update(predictions, batch)
    value = metric.compute()[task.primary]
    if not isinstance(data.val, BoxSet):
        return value, None
    return value, resampled_metric(metric, data.val, draw_images(len(data.val)))


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Compared:
    path = workspace.folder / FILE
    must = "A comparison must be as it was written."
    with refusing(FileError, must, f"'{path}'", "Start again with --fresh."):
        rows = parse_json(read_text(path))["networks"]
        for row in rows:
            row["difference"] = tuple(row["difference"]) if row["difference"] else None
        return Compared(tuple(ComparedNetwork(**row) for row in rows))


def _digests(result: Compared) -> Mapping[str, str]:
    return {"metrics": digest_of_value(asdict(result))}


COMPARISON = Stage(
    name="comparison",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS),
    harmless=LOADING,
    files=("data.ground_truth",),
    splits=("val",),
    needs=("train.weights", "control.weights", "prune.weights", "distill.weights"),
    digests=_digests,
    makes=lambda _: (FILE,),
)
