"""`train`, `eval` and `demo`."""

from collections.abc import Sequence
from pathlib import Path

from flyweight.cli.console import metrics_table, say, show, show_json
from flyweight.cli.prune import Ratios
from flyweight.errors import ConfigError
from flyweight.recipe.config import Config, load_config, touched
from flyweight.recipe.cut import build_model, with_cut
from flyweight.recipe.session import (
    as_told,
    load_model,
    open_data,
    open_val,
    require_same_labels,
    saved_preprocessing,
    starting_weights,
    weights_path,
)
from flyweight.recipe.stages import evaluate_model, train_model


def train(name: str, overrides: Sequence[str], *, resume: bool, as_json: bool) -> None:
    """Train the config's model."""
    label, config = load_config(name, overrides)
    folder = Path(config.save_dir) / label
    model = build_model(config)
    data = open_data(config, save_dir=folder)
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
    name: str, overrides: Sequence[str], weights: str, *, ratios: Ratios, as_json: bool
) -> None:
    """Print the metrics of a checkpoint on the validation split."""
    label, config = load_config(name, overrides)
    path = checkpoint_path(label, config, weights)
    model, found = load_model(path, config)
    if found.preprocessing:
        config = as_told(config, saved_preprocessing(found, path), touched(overrides))
    if ratios.given:
        model = with_cut(model, found, config.preprocessing, ratios.cut(config.prune))
        if not found.plans:
            say(f"note: {path} is not pruned; it was cut now")
    box_set = open_val(config)
    require_same_labels(found, box_set.labels, path)
    metrics = evaluate_model(model, config, box_set)
    if as_json:
        show_json({"metrics": metrics, "checkpoint": path})
    else:
        show(metrics_table(metrics))


def checkpoint_path(label: str, config: Config, weights: str) -> Path:
    """Return the checkpoint to use: as given, else the best one of the config's folder.

    Raises:
        ConfigError: None was given and none is there.
    """
    given = weights or config.weights
    if given:
        return weights_path(given)
    usual = Path(config.save_dir) / label / "best_model.safetensors"
    if usual.is_file():
        return usual
    raise ConfigError(
        f"A checkpoint must be given. Received none, and '{usual}' does not exist. "
        "Add: -o weights=CHECKPOINT"
    )


def demo(name: str, overrides: Sequence[str], folder: Path, *, fresh: bool, as_json: bool) -> None:
    """Run the whole chain and print its table."""
    from flyweight.recipe.run import forget, run
    from flyweight.report.markdown import comparison_table

    label, config = load_config(name, overrides)
    if fresh:
        forget(folder)
    finished = run(label, config, folder, say=say)
    if as_json:
        show(finished.report.to_json())
        return
    show(comparison_table(finished.report))
    show(f"report: {finished.page}")
