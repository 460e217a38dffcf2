"""Report stage: the dense and the pruned network of a chain side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyweight.config.scanning import SCANS
from flyweight.config.settings import Config
from flyweight.digests import digest_of_file
from flyweight.pipeline.build_report import ReportedNetwork, ReportInputs, build_report
from flyweight.pipeline.distillation_outcomes import UNTAUGHT
from flyweight.pipeline.explorer_inputs import with_explorer
from flyweight.pipeline.inputs import load_model
from flyweight.pipeline.network_plans import trace_model
from flyweight.pipeline.rendered_report import Reported, rendered
from flyweight.pipeline.report_outcomes import outcomes_of
from flyweight.pipeline.results import Benchmarked, Exported, Pruned, Trained, pruned_checkpoint
from flyweight.pipeline.stage import INPUT, LOADING, NETWORK, TASKS, Inputs, Stage
from flyweight.pipeline.version_0_1_0 import digest_as_recorded
from flyweight.report.collect import HTML_NAME, JSON_NAME, MARKDOWN_NAME, read_report
from flyweight.report.quantization_results import RECORD_NAME
from flyweight.workspace import Workspace

FILES = (JSON_NAME, MARKDOWN_NAME, HTML_NAME)


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> Reported:
    dense: Trained = inputs.results["train"]
    pruned: Pruned = inputs.results["prune"]
    exported: Exported = inputs.results["export"]
    measured: Benchmarked = inputs.results["bench"]
    checkpoints = {"dense": dense.checkpoint, "pruned": pruned_checkpoint(inputs.results)}
    networks = tuple(
        ReportedNetwork(name, checkpoints[name], file, measured.of(file))
        for name, file in exported.files.items()
    )
    model = load_model(dense.checkpoint, settings)[0]
    graph = trace_model(model, settings.preprocessing)
    untaught = pruned.checkpoint if "distill" in inputs.results else None
    shown = {network.name: network.checkpoint for network in networks}
    if untaught is not None:
        shown = {"dense": shown["dense"], UNTAUGHT: untaught, "pruned": shown["pruned"]}
    outcomes = {
        name: outcomes_of(path, settings, inputs.splits.val, name=name, progress=inputs.progress)
        for name, path in shown.items()
    }
    wanted = ReportInputs(
        name=inputs.name,
        config=settings,
        data=inputs.splits,
        folder=workspace.folder,
        plan=pruned.plan,
        graph=graph,
        networks=networks,
        comparison=inputs.results.get("comparison"),
        outcomes=outcomes,
        untaught=untaught,
    )
    built = build_report(wanted)

    def digest(scanned: Mapping[str, str]) -> str:
        recorded = scanned.get("data", "")
        return digest_as_recorded(recorded, inputs.splits.val, inputs.digest_of("val"))

    network, say = (model, settings.preprocessing), inputs.progress.note
    found = with_explorer(built, workspace.folder, network=network, data=digest, say=say)
    return rendered(found, workspace.folder)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> Reported:
    files = tuple(workspace.folder / name for name in FILES)
    return Reported(read_report(workspace.folder), files[-1], files)


def _surroundings(folder: Path) -> Mapping[str, Any]:
    # Users put scans of the dense network there.
    found: dict[str, Any] = {
        "scans": {path.name: digest_of_file(path) for path in sorted(folder.glob(SCANS))}
    }
    if (folder / RECORD_NAME).is_file():
        found["quantization"] = digest_of_file(folder / RECORD_NAME)
    return found


REPORT = Stage(
    name="report",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, *TASKS),
    harmless=LOADING,
    splits=("val",),
    needs=(
        *("train.weights", "train.description", "prune.weights", "prune.description"),
        *("distill.weights", "distill.description"),
        *("export.dense", "export.pruned", "bench.measurements", "comparison.metrics"),
    ),
    surroundings=_surroundings,
    makes=lambda _: FILES,
)
