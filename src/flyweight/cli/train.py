"""`train`, `eval` and `demo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.cli.console import metrics_table, say, show, show_json
from flyweight.config.cut_options import CutOptions
from flyweight.config.reading import load_config, touched
from flyweight.pipeline.preflight import checkpoint_path, require_paths

if TYPE_CHECKING:
    from flyweight.data.records import ImageSet


def train(name: str, overrides: Sequence[str], *, resume: bool, as_json: bool) -> None:
    """Train the config's model."""
    label, config = load_config(name, overrides)
    require_paths(config)

    from flyweight.pipeline.inputs import open_data, starting_weights
    from flyweight.pipeline.network_plans import build_model
    from flyweight.pipeline.stage_work import train_model

    folder = Path(config.save_dir) / label
    model = build_model(config)
    data = open_data(config, save_dir=folder)
    _say_left_out(data.train, data.val)
    say(starting_weights(model, config))
    result = train_model(model, config, config.train, data, folder, resume=resume)
    metrics = result.best_metrics or result.last_metrics
    saved = result.best_path or result.final_path
    if as_json:
        show_json({"metrics": metrics, "checkpoint": saved, "seconds": result.seconds})
        return
    show(metrics_table(metrics))
    show(f"saved {saved}")


def evaluate(
    name: str,
    overrides: Sequence[str],
    weights: str,
    *,
    ratios: CutOptions,
    save_to: Path | None = None,
    as_json: bool,
) -> None:
    """Print the metrics of a checkpoint on the validation split.

    Args:
        name: A config's name.
        overrides: As after `-o`.
        weights: The checkpoint; may be empty.
        ratios: What to cut first.
        save_to: Gets what a detector finds, as WIDER FACE's evaluation tools read it.
        as_json: Print for machines.
    """
    label, config = load_config(name, overrides)
    path = checkpoint_path(label, config, weights)
    require_paths(config)

    from flyweight.pipeline.inputs import (
        load_model,
        open_val,
        require_same_labels,
        saved_preprocessing,
        with_overrides,
    )
    from flyweight.pipeline.network_plans import with_cut
    from flyweight.pipeline.networks import own_builder
    from flyweight.pipeline.stage_work import evaluate_model

    model, found = load_model(path, config)
    if found.preprocessing:
        config = with_overrides(config, saved_preprocessing(found, path), touched(overrides))
    if ratios.given:
        cut, build = ratios.cut(config.prune), own_builder(config)
        model = with_cut(model, found, config.preprocessing, cut, build)
        if not found.plans:
            say(f"note: {path} is not pruned; it was cut now")
    box_set = open_val(config, save_dir=Path(config.save_dir) / label)
    _say_left_out(box_set)
    require_same_labels(found, box_set.labels, path)
    metrics = evaluate_model(model, config, box_set, save_to=save_to)
    if as_json:
        show_json({"metrics": metrics, "checkpoint": path})
    else:
        show(metrics_table(metrics))


def _say_left_out(*splits: "ImageSet") -> None:
    from flyweight.data.usable import left_out

    for note in filter(None, map(left_out, splits)):
        say(note)


def demo(name: str, overrides: Sequence[str], folder: Path, *, fresh: bool, as_json: bool) -> None:
    """Run the whole chain and print its table."""
    label, config = load_config(name, overrides)
    require_paths(config)

    from flyweight.pipeline.chain import forget, run
    from flyweight.report.markdown import comparison_table

    if fresh:
        forget(folder)
    finished = run(label, config, folder, say=say)
    if as_json:
        show(finished.report.to_json())
        return
    show(comparison_table(finished.report))
    show(f"report: {finished.page}")
