"""Training, evaluation and the demo from the command line."""

from collections.abc import Sequence
from pathlib import Path

from flyweight import pipeline
from flyweight.cli.console import metrics_table, show, show_json
from flyweight.config.cut_options import CutOptions
from flyweight.config.reading import load_config
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.preflight import require_paths
from flyweight.report.markdown import comparison_table


def train(name: str, overrides: Sequence[str], *, resume: bool, as_json: bool) -> None:
    """Train the config's model."""
    label, config = load_config(name, overrides)
    require_paths(config)
    found = pipeline.train(label, config, resume=resume, progress=True)
    if as_json:
        values = {"metrics": found.metrics, "checkpoint": found.checkpoint}
        show_json({**values, "seconds": found.seconds})
        return
    show(metrics_table(found.metrics))
    show(f"saved {found.checkpoint}")


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
        ratios: What to prune first.
        save_to: Gets what a detector finds, as WIDER FACE's evaluation tools read it.
        as_json: Print for machines.
    """
    source = ModelSource(name, tuple(overrides), weights)
    source.find()
    require_paths(load_config(name, overrides)[1])
    found = pipeline.evaluate_checkpoint(source, cut=ratios, save_to=save_to, progress=True)
    if as_json:
        show_json({"metrics": found.metrics, "checkpoint": found.checkpoint})
    else:
        show(metrics_table(found.metrics))


def demo(name: str, overrides: Sequence[str], folder: Path, *, fresh: bool, as_json: bool) -> None:
    """Run the whole chain and print its table."""
    label, config = load_config(name, overrides)
    require_paths(config)
    if fresh:
        pipeline.forget(folder)
    found = pipeline.run_chain(label, config, folder, progress=True)["report"]
    if as_json:
        show(found.report.to_json())
        return
    show(comparison_table(found.report))
    show(f"report: {found.page}")
