"""The whole chain from one config: train, prune, fine-tune, export, measure, report.

Every stage writes into its own folder and leaves a note of what it was made from; a stage whose
note still holds is not done again, so a chain that was cut off goes on where it stopped.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.bench.config import BenchConfig
from flyweight.bench.measure import Measurement, measure
from flyweight.files import write_text
from flyweight.pruning import PruningPlan
from flyweight.recipe.config import Config
from flyweight.recipe.cut import Cut, build_model, prune_model, trace_model
from flyweight.recipe.session import (
    Data,
    load_model,
    open_checkpoint,
    open_data,
    starting_weights,
)
from flyweight.recipe.stages import evaluate_model, export_model, save_pruned, train_model
from flyweight.recipe.story import Stage, Story, tell
from flyweight.report.render import render_all
from flyweight.report.rows import Report

Say = Callable[[str], None]


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
    folder: Path
    data: Data
    say: Say

    def stage(self, name: str, made_from: Any, work: Callable[[Path], None]) -> Path:
        """Do `work` in the stage's folder unless its note says that it is done."""
        folder = self.folder / name
        note = folder / "done.json"
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        if note.is_file() and json.loads(note.read_text(encoding="utf-8"))["made_from"] == digest:
            self.say(f"{name}: done before")
            return folder
        self.say(f"{name}:")
        started = time.monotonic()
        work(folder)
        seconds = time.monotonic() - started
        write_text(note, json.dumps({"made_from": digest, "seconds": round(seconds, 1)}))
        self.say(f"{name}: {seconds:.0f} s")
        return folder


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
    cut = Cut(
        config.prune.params, config.prune.ratios, config.prune.criterion, config.prune.round_to
    )
    data = open_data(config, save_dir=folder)
    chain = _Chain(name, config, folder, data, say)
    facts = config.model_dump(mode="json", exclude={"prune", "finetune", "bench", "save_dir"})
    dense = chain.stage("dense", facts, lambda place: _train(chain, place)) / _BEST
    whole = config.model_dump(mode="json", exclude={"bench", "save_dir"})
    pruned = chain.stage("pruned", whole, lambda place: _prune(chain, cut, dense, place)) / _BEST
    exported = chain.stage("export", whole, lambda place: _export(chain, (dense, pruned), place))
    files = (exported / "dense.onnx", exported / "pruned.onnx")
    measured = _measure(chain, files)
    story = Story(
        name=name,
        config=config,
        data=data,
        folder=folder,
        plan=PruningPlan.from_json((folder / "pruned" / "plan.json").read_text(encoding="utf-8")),
        graph=trace_model(load_model(dense)[0], config),
        stages=(
            Stage("dense", dense, files[0], measured[files[0]]),
            Stage("pruned", pruned, files[1], measured[files[1]]),
        ),
    )
    report = tell(story)
    page = render_all(report, folder)[-1]
    return Finished(report, page)


_BEST = "best_model.safetensors"


def _train(chain: _Chain, place: Path) -> None:
    model = build_model(chain.config)
    chain.say(starting_weights(model, chain.config))
    train_model(model, chain.config, chain.config.train, chain.data, place, resume=True)


def _prune(chain: _Chain, cut: Cut, dense: Path, place: Path) -> None:
    config = chain.config
    model, _ = load_model(dense, config)
    small, made = prune_model(model, config, cut)
    write_text(place / "plan.json", made.to_json())
    metrics = evaluate_model(small, config)
    save_pruned(small, config, chain.data.labels, metrics, place / "before_finetuning.safetensors")
    shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in list(metrics.items())[:1])
    chain.say(f"pruned, before fine-tuning: {shown}")
    training = config.finetune or config.train
    train_model(small.train(), config, training, chain.data, place, resume=True)


def _export(chain: _Chain, checkpoints: tuple[Path, Path], place: Path) -> None:
    for path, stage in zip(checkpoints, ("dense", "pruned"), strict=True):
        loaded = open_checkpoint(path)
        export_model(loaded, place / f"{stage}.onnx", end="raw", name=f"{chain.name} {stage}")
        target = place / f"{stage}_nms.onnx"
        export_model(loaded, target, end="detections", name=f"{chain.name} {stage}")


def _measure(chain: _Chain, files: tuple[Path, Path]) -> dict[Path, tuple[Measurement, ...]]:
    chain.say("measure:")
    settings = BenchConfig(seconds=chain.config.bench.seconds)
    rows = measure(files, threads=chain.config.bench.threads, config=settings)
    for row in rows:
        for note in row.notes:
            chain.say(f"note: {row.name}, {row.threads} threads: {note}")
    return {file: tuple(row for row in rows if row.path == str(file)) for file in files}
