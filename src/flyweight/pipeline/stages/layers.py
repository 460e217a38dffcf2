"""Stage of the latency table: what each layer takes at each width, for latency budgets."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from flyweight.config.cuts import THIS_RUN, BudgetCut
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.settings import Config, MeasureConfig
from flyweight.digests import digest_of_file
from flyweight.folder_lock import FolderLock
from flyweight.measuring.environment import hardware
from flyweight.measuring.latency_table import read_table
from flyweight.pipeline.inputs import load_model, open_checkpoint
from flyweight.pipeline.latency_cuts import NetworkTimer, measured_table
from flyweight.pipeline.network_plans import build_model, trace_model, weightless
from flyweight.pipeline.preflight import weights_path
from flyweight.pipeline.results import LayersTimed, Trained
from flyweight.pipeline.stage import INPUT, NETWORK, Inputs, Stage
from flyweight.progress import Progress, progress_of
from flyweight.workspace import LOCK, Workspace

TABLE = "layers.json"


@dataclass(frozen=True)
class LayersOptions:
    """What the caller of the stage chooses besides the config.

    Attributes:
        threads: Threads of one inference.
        seconds: Measuring time for the whole network; None takes the config's.
        runtime: Name of the runtime; empty takes the config's.
        file: Name of the file of the table.
    """

    threads: int = 1
    seconds: float | None = None
    runtime: str = ""
    file: str = TABLE


def time_layers(
    config: Config,
    save_to: Path,
    options: LayersOptions = LayersOptions(),
    *,
    progress: Progress | bool = False,
) -> LayersTimed:
    """Measure the layers of the config's network; an interrupted table is resumed.

    Args:
        config: Model and input size. Weights do not matter to latency, but those of `weights` say
            how a pruned network was pruned.
        save_to: The file of the table.
        options: How to measure.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The network or the file is unusable, or another run writes the file.
    """
    results = {}
    if config.weights:
        results["train"] = Trained(weights_path(config.weights), {}, 0.0)
    inputs = Inputs(
        name="",
        results=results,
        options=replace(options, file=save_to.name),
        resume=True,
        progress=progress_of(progress),
    )
    result: LayersTimed = LAYERS.run(inputs, LAYERS.view(config), Workspace(save_to.parent))
    return result


def time_layers_of_checkpoint(
    weights: Path,
    save_to: Path,
    options: LayersOptions = LayersOptions(),
    *,
    progress: Progress | bool = False,
) -> LayersTimed:
    """Measure the layers of a checkpoint's network at the size of its own input.

    Args:
        weights: The checkpoint.
        save_to: The file of the table.
        options: How to measure.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The checkpoint or the file is unusable, or another run writes the file.
    """
    loaded, reports = open_checkpoint(weights), progress_of(progress)
    reports.note(f"weights: {weights}")
    return _timed(loaded.model, loaded.preprocessing, save_to, (options, MeasureConfig()), reports)


def _run(inputs: Inputs, settings: Config, workspace: Workspace) -> LayersTimed:
    options: LayersOptions = inputs.options
    earlier: Trained | None = inputs.results.get("train")
    model = (
        build_model(settings) if earlier is None else load_model(earlier.checkpoint, settings)[0]
    )
    target, how = workspace.folder / options.file, (options, settings.bench)
    return _timed(model, settings.preprocessing, target, how, inputs.progress)


def _timed(
    model: nn.Module,
    preprocessing: Preprocessing,
    target: Path,
    how: tuple[LayersOptions, MeasureConfig],
    progress: Progress,
) -> LayersTimed:
    options, default = how
    progress.note(f"measuring layers; an interrupted run is resumed from '{target}'")
    seconds = default.seconds if options.seconds is None else options.seconds
    runtime, threads = options.runtime or default.runtime, options.threads
    with (
        FolderLock(target.with_name(f".{target.name}{LOCK}")),
        NetworkTimer(
            model.eval(), preprocessing, threads=threads, seconds=seconds, runtime=runtime
        ) as timer,
    ):
        table = measured_table(timer, target, progress)
    return LayersTimed(target, table, timer.graph)


def _read(inputs: Inputs, settings: Config, workspace: Workspace) -> LayersTimed:
    path = workspace.folder / inputs.options.file
    graph = trace_model(weightless(settings), settings.preprocessing)
    return LayersTimed(path, read_table(path), graph)


def _wanted(config: Config) -> bool:
    """Say whether a chain cuts by a latency table of its own network."""
    cut = config.prune.cut
    return isinstance(cut, BudgetCut) and cut.latency_table == THIS_RUN


LAYERS = Stage(
    name="layers",
    run=_run,
    read=_read,
    settings=(*NETWORK, *INPUT, "bench.seconds", "bench.runtime"),
    harmless=("train.seed",),
    surroundings=lambda _: {"machine": hardware()},
    digests=lambda result: {"table": digest_of_file(result.file)},
    makes=lambda _: (TABLE,),
    wanted=_wanted,
    options=LayersOptions(),
)
