"""The whole chain from one config: train, prune, fine-tune, export, measure, report.

Every stage writes into its own folder and leaves a note of what it was made from; a stage whose
note still holds is not done again, so a chain that was cut off goes on where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flyweight
from flyweight.config.cuts import Cut, nothing_to_cut, plain_cut
from flyweight.config.measuring import BenchConfig
from flyweight.config.settings import Config
from flyweight.config.training import HARMLESS, TrainConfig
from flyweight.digests import digest_of_file, digest_of_images
from flyweight.engine.run import BEST
from flyweight.errors import ConfigError, FileError, counted
from flyweight.files import write_text
from flyweight.measuring.measure import Measurement, measure
from flyweight.pipeline.build_report import ReportInputs, Stage, build_report
from flyweight.pipeline.explorer_inputs import with_explorer
from flyweight.pipeline.inputs import (
    Data,
    Saver,
    load_model,
    open_checkpoint,
    open_data,
    starting_weights,
)
from flyweight.pipeline.network_plans import build_model, prune_model, trace_model
from flyweight.pipeline.networks import kind_of
from flyweight.pipeline.preflight import HUBS, ends_of, weights_path
from flyweight.pipeline.stage_work import (
    evaluate_model,
    export_model,
    images_to_compare,
    measured_criterion,
    repair_model,
    train_model,
)
from flyweight.pruning import PruningPlan
from flyweight.report.render import render_all
from flyweight.report.rows import Report
from flyweight.workspace import MadeFrom, Say, Work, Workspace, perform

STAGES = ("dense", "pruned", "export")
_PLAN = "plan.json"
# Keys of a config that change nothing in a checkpoint, or that a stage states by themselves.
_ASIDE = {
    *("bench", "eval_batch_size", "save_dir"),
    *("train", "finetune", "prune", "weights", "pretrain_weights"),
}


@dataclass(frozen=True)
class Finished:
    """What a chain leaves behind.

    Attributes:
        report: Dense and pruned, side by side.
        page: The HTML report.
    """

    report: Report
    page: Path


@dataclass(frozen=True)
class _Chain:
    """What every stage needs to know."""

    name: str
    config: Config
    cut: Cut
    folder: Path
    data: Data
    say: Say


def run(name: str, config: Config, folder: Path, *, say: Say) -> Finished:
    """Run the chain of `config` in `folder`.

    Args:
        name: What the report calls the run.
        config: Model, data, training, cut.
        folder: Gets one folder per stage and the report.
        say: Told what is going on, a line at a time.

    Raises:
        FlyweightError: A stage cannot be done; what was done before stays.
    """
    if config.weights is not None:
        raise ConfigError(
            f"The chain must train its own network. Received weights '{config.weights}'. "
            "Give them as pretrain_weights to start from."
        )
    cut = config.prune.cut
    if cut is None:
        raise nothing_to_cut()
    chain = _Chain(name, config, cut, folder, open_data(config, save_dir=folder), say)
    dense = _dense(chain)
    pruned = _pruned(chain, dense)
    files = _exported(chain, dense, pruned)
    measured = _measure(chain, files)
    inputs = ReportInputs(
        name=name,
        config=config,
        data=chain.data,
        folder=folder,
        plan=PruningPlan.from_json(_read(pruned.parent / _PLAN)),
        graph=trace_model(load_model(dense, config)[0], config.preprocessing),
        stages=(
            Stage("dense", dense, files[0], measured[files[0]]),
            Stage("pruned", pruned, files[1], measured[files[1]]),
        ),
    )
    report = with_explorer(build_report(inputs), folder, graph=inputs.graph, say=say)
    page = render_all(report, folder)[-1]
    return Finished(report, page)


def forget(folder: Path) -> None:
    """Make every stage of the chain in `folder` be done again; nothing is removed."""
    for stage in STAGES:
        Workspace(folder / stage).forget()


def _facts(chain: _Chain, training: TrainConfig) -> dict[str, Any]:
    """Return what every trained network depends on."""
    return {
        "version": flyweight.__version__,
        "config": chain.config.model_dump(mode="json", exclude=_ASIDE),
        "training": training.model_dump(mode="json", exclude=set(HARMLESS)),
        "data": [digest_of_images(chain.data.train), digest_of_images(chain.data.val)],
    }


def _dense(chain: _Chain) -> Path:
    config, place = chain.config, chain.folder / "dense"
    start = config.pretrain_weights
    made_from = {
        **_facts(chain, config.train),
        "start": start if start in (None, *HUBS) else digest_of_file(weights_path(start)),
    }

    def work(resumes: bool) -> None:
        model = build_model(config)
        chain.say(starting_weights(model, config))
        train_model(model, config, config.train, chain.data, place, resume=resumes)

    perform(Work(place.name, MadeFrom(made_from), [BEST]), Workspace(place), work, say=chain.say)
    return place / BEST


def _pruned(chain: _Chain, dense: Path) -> Path:
    config, place = chain.config, chain.folder / "pruned"
    training = config.finetune or config.train
    made_from = {
        **_facts(chain, training),
        "cut": plain_cut(chain.cut),
        "dense": digest_of_file(dense),
        **({"repair": config.prune.repair_images} if config.prune.repair else {}),
    }

    def work(resumes: bool) -> None:
        model, _ = load_model(dense, config)
        measured = measured_criterion(model, config, chain.data, chain.cut)
        small, made = prune_model(model, config.preprocessing, chain.cut, measured)
        write_text(place / _PLAN, made.to_json())
        if config.prune.repair:
            chain.say(str(repair_model(model, small, made, config, chain.data, say=chain.say)))
        metrics = evaluate_model(small, config, chain.data.val)
        save = Saver(config, chain.data.labels, kind_of(config))
        save(small, metrics, place / "before_finetuning.safetensors")
        for metric, value in list(metrics.items())[:1]:
            chain.say(f"pruned, before fine-tuning: {metric} {100 * value:.1f} %")
        train_model(small.train(), config, training, chain.data, place, resume=resumes)

    perform(
        Work(place.name, MadeFrom(made_from), [BEST, _PLAN]), Workspace(place), work, say=chain.say
    )
    return place / BEST


def _exported(chain: _Chain, dense: Path, pruned: Path) -> tuple[Path, Path]:
    place = chain.folder / "export"
    checkpoints = {"dense": dense, "pruned": pruned}
    made_from = {
        "version": flyweight.__version__,
        "name": chain.name,
        "checkpoints": [digest_of_file(path) for path in checkpoints.values()],
    }

    useful = ends_of(kind_of(chain.config))[0]
    ending = "nms" if useful == "detections" else useful

    def work(_: bool) -> None:
        for stage, path in checkpoints.items():
            loaded = open_checkpoint(path, chain.config)
            images = images_to_compare(chain.data.val, loaded.preprocessing)
            for end, file in (("raw", f"{stage}.onnx"), (useful, f"{stage}_{ending}.onnx")):
                target, called = place / file, f"{chain.name} {stage}"
                export_model(loaded, target, end=end, name=called, images=images)

    makes = [f"{stage}{end}.onnx" for stage in checkpoints for end in ("", f"_{ending}")]
    perform(Work(place.name, MadeFrom(made_from), makes), Workspace(place), work, say=chain.say)
    return place / "dense.onnx", place / "pruned.onnx"


def _measure(chain: _Chain, files: tuple[Path, Path]) -> dict[Path, tuple[Measurement, ...]]:
    chain.say("measure:")
    bench = chain.config.bench
    settings = BenchConfig(seconds=bench.seconds)
    rows = measure(files, threads=bench.threads, runtime=bench.runtime, config=settings)
    for row in rows:
        for note in row.notes:
            chain.say(f"note: {row.name}, {counted(row.threads, 'thread')}: {note}")
    return {file: tuple(row for row in rows if row.path == str(file)) for file in files}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' must be readable. Received: {error}. Add --fresh.") from error
