"""`sensitivity`: what each layer's channels are worth to the metric; plans are made from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.cli.console import columns, say, show, show_json
from flyweight.errors import PlanError
from flyweight.recipe.config import load_config
from flyweight.recipe.early import checkpoint_path, require_paths

if TYPE_CHECKING:
    from flyweight.sensitivity import Sensitivity


@dataclass(frozen=True)
class Request:
    """What the command line asks to scan."""

    config: str
    overrides: tuple[str, ...]
    weights: str
    params: str
    ratios: str
    criterion: str


def scan(request: Request, save_to: Path, *, as_json: bool) -> None:
    """Scan the config's checkpoint over the validation split, or go on with a scan."""
    label, config = load_config(request.config, request.overrides)
    path = checkpoint_path(label, config, request.weights)
    require_paths(config)
    ratios = _ratios(request.ratios)

    from flyweight.pruning import split_list
    from flyweight.recipe.cut import trace_model
    from flyweight.recipe.session import (
        load_model,
        open_val,
        require_same_labels,
        task_of,
        val_batches,
    )
    from flyweight.recipe.stage import data_digest
    from flyweight.sensitivity import scan as scan_layers
    from flyweight.zoo.old_names import old_names

    model, found = load_model(path, config)
    pictures = open_val(config, save_dir=Path(config.save_dir) / label)
    require_same_labels(found, pictures.labels, path)
    say(f"weights: {path}")
    graph = trace_model(model.eval(), config.preprocessing)
    curves = scan_layers(
        graph,
        model,
        val_batches(config, pictures),
        task_of(model, pictures.labels, config),
        ratios=ratios,
        save_to=save_to,
        layers=_layers(split_list(request.params) or config.prune.params),
        criterion=request.criterion or config.prune.criterion,
        local=True,
        aliases=old_names(graph.tensors),
        data=data_digest(pictures),
        progress=True,
    )
    _tell(curves, save_to, as_json=as_json)


def _layers(given: Sequence[str]) -> Sequence[str] | None:
    from flyweight.recipe.cut import ALL

    return None if not given or tuple(given) == (ALL,) else given


def merge(files: Sequence[Path], save_to: Path, *, as_json: bool) -> None:
    """Put the curves of several files into one; the originals' files are read, too."""
    from flyweight.sensitivity import merge as merge_two
    from flyweight.sensitivity import read

    first, *others = [read(file) for file in files]
    for other in others:
        first = merge_two(first, other)
    first.save(save_to)
    _tell(first, save_to, as_json=as_json)


def loss_table(curves: "Sensitivity") -> str:
    """Return the losses of all layers in per cent of the baseline; below 0 is a gain."""
    ratios = sorted({point.ratio for points in curves.curves.values() for point in points})
    rows = [("loss in % at", *(f"{ratio:g}" for ratio in ratios))]
    for layer in curves.curves:
        losses = curves.losses(layer)
        rows.append((layer, *(f"{100 * losses[r]:.1f}" if r in losses else "" for r in ratios)))
    return columns(rows)


def _tell(curves: "Sensitivity", saved: Path, *, as_json: bool) -> None:
    table = loss_table(curves)
    if as_json:
        losses: dict[str, Any] = {
            layer: {f"{ratio:g}": loss for ratio, loss in curves.losses(layer).items()}
            for layer in curves.curves
        }
        values = {"metric": curves.metric, "baseline": curves.baseline, "losses": losses}
        show_json({**values, "file": saved})
        return
    show(
        f"{curves.metric} {100 * curves.baseline:.2f} % before any cut\n\n{table}\n\nsaved {saved}"
    )


def _ratios(text: str) -> tuple[float, ...]:
    from flyweight.pruning import split_list

    try:
        found = tuple(float(word) for word in split_list(text))
    except ValueError as error:
        raise PlanError(
            f"Ratios must be numbers between 0 and 1. Received '{text}' in --pruned-ratios. "
            'Write for example "0.25 0.5 0.75".'
        ) from error
    if not found or not all(0 < ratio < 1 for ratio in found):
        raise PlanError(
            f"Ratios must be numbers between 0 and 1. Received '{text}' in --pruned-ratios. "
            'Write for example "0.25 0.5 0.75".'
        )
    return found
