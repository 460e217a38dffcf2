"""Chains: stages one after the other, each skipped, resumed or run as its digests say.

A chain is a tuple of stages. Each stage gets the results of those before it; what is finished and
made from the same things is skipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyweight.config.settings import Config
from flyweight.errors import ConfigError
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.network_plans import weightless
from flyweight.pipeline.networks import require_training_sides
from flyweight.pipeline.stage import Inputs, Stage, complete, made_from
from flyweight.pipeline.stages.bench import BENCH
from flyweight.pipeline.stages.distill import DISTILL
from flyweight.pipeline.stages.export import EXPORT
from flyweight.pipeline.stages.layers import LAYERS
from flyweight.pipeline.stages.prune import PRUNE
from flyweight.pipeline.stages.report import REPORT
from flyweight.pipeline.stages.scan import SCAN
from flyweight.pipeline.stages.train import TRAIN, note_left_out
from flyweight.pipeline.version_0_1_0 import digest_of_stage_0_1_0
from flyweight.progress import Progress, progress_of
from flyweight.workspace import MadeFrom, Work, Workspace, perform

CHAIN = (TRAIN, SCAN, LAYERS, PRUNE, DISTILL, EXPORT, BENCH, REPORT)
"""What `flyweight demo` runs: from data to the report of the dense and the pruned network."""


@dataclass(frozen=True)
class _Run:
    """What all stages of a chain share."""

    name: str
    config: Config
    folder: Path
    inputs: Inputs


def run_chain(
    name: str,
    config: Config,
    folder: Path,
    *,
    stages: Sequence[Stage] = CHAIN,
    fresh: bool = False,
    progress: Progress | bool = False,
) -> Mapping[str, Any]:
    """Run stages in `folder`, and return their results by the stages' names.

    Args:
        name: Of the run, for the report.
        config: Model, data, training, cut.
        folder: Gets one folder for each of the larger stages, and the report.
        stages: What to run, in order.
        fresh: Run every stage again, finished ones included.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: A stage fails, or another run works in the folder. What was finished before
            stays and is skipped the next time.
    """
    if config.weights is not None:
        raise ConfigError(
            f"The chain must train its own network. Received weights '{config.weights}'. "
            "Give them as pretrain_weights to start from."
        )
    require_training_sides(config)
    for stage in stages:
        stage.check(config)
    reports, results = progress_of(progress), dict[str, Any]()
    with Workspace(folder).locked():
        if fresh:
            forget(folder, stages)
        weightless(config)  # A network that cannot be built is refused before the data are read.
        data = open_data(config, save_dir=folder)
        note_left_out(data, reports)
        run = _Run(name, config, folder, Inputs(name, data, progress=reports))
        digests: dict[str, Mapping[str, str]] = {}
        wanted = [stage for stage in stages if stage.wanted(config)]
        _check_inputs(wanted, run, results)
        for place, stage in enumerate(wanted):
            results[stage.name] = _enter(stage, run, results, digests)
            digests[stage.name] = stage.digests(results[stage.name])
            # The next stage refuses by itself what it cannot work with.
            later = [one for one in wanted[place + 2 :] if one.needs_result_of(stage)]
            _check_inputs(later, run, results)
    return results


def _check_inputs(stages: Sequence[Stage], run: _Run, results: Mapping[str, Any]) -> None:
    """Refuse what a stage cannot work with before the stages until then have run."""
    config = complete(run.config)
    for stage in stages:
        inputs = replace(run.inputs, results=dict(results), options=stage.options)
        stage.check_inputs(inputs, stage.view(config))


def forget(folder: Path, stages: Sequence[Stage] = CHAIN) -> None:
    """Make every stage of the chain in `folder` run again; nothing is removed."""
    for stage in stages:
        stage.workspace(folder, in_chain=True).forget()


def _enter(
    stage: Stage, run: _Run, results: Mapping[str, Any], digests: Mapping[str, Mapping[str, str]]
) -> Any:
    """Return the result of one stage: finished before, resumed, or made now."""
    config = complete(run.config)
    inputs = replace(run.inputs, results=dict(results), options=stage.options)
    workspace = stage.workspace(run.folder, in_chain=True)
    wanted = made_from(stage, config, inputs, run.folder, digests)
    _adopt(stage, run, workspace, wanted)
    settings, made = stage.view(config), list[Any]()

    def do(resumes: bool) -> None:
        given = replace(inputs, resume=resumes, unchanged=resumes)
        made.append(stage.run(given, settings, workspace))

    work = Work(stage.title, wanted, stage.makes(settings), shares_folder=not stage.folder)
    perform(work, workspace, do, say=inputs.progress.note)
    return made[0] if made else stage.read(inputs, settings, workspace)


def _adopt(stage: Stage, run: _Run, workspace: Workspace, wanted: MadeFrom) -> None:
    """Rewrite the note of a stage that version 0.1.0 has finished from the same things."""
    note = workspace.read()
    if note is None or note.old_digest is None or not note.finished:
        return
    data = run.inputs.splits
    digest = digest_of_stage_0_1_0(stage.name, run.name, run.config, data, run.folder)
    if note.old_digest == digest:
        workspace.finish(wanted, note.seconds or 0.0)
