"""`sensitivity`: what each layer's channels are worth to the metric; plans are made from it."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.cli.console import columns, say, show, show_json
from flyweight.errors import PlanError
from flyweight.recipe.config import Config, load_config
from flyweight.recipe.early import checkpoint_path, require_paths

if TYPE_CHECKING:
    from flyweight.graph import ModelGraph
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

    def read(self) -> tuple[str, Config]:
        """Return the config's name and the config.

        Raises:
            ConfigError: The config cannot be meant.
        """
        return load_config(self.config, self.overrides)


@dataclass(frozen=True)
class Files:
    """Where results go.

    Attributes:
        curves: The curves, as JSON.
        picture: The curves drawn, as PNG; None for none.
        page: The curves and the plan explorer, as HTML; None for none.
    """

    curves: Path
    picture: Path | None
    page: Path | None

    @classmethod
    def beside(
        cls, curves: Path, picture: Path | None, page: Path | None, *, plain: bool
    ) -> "Files":
        """Return what was asked for, else files that are named after the curves.

        Args:
            curves: As given.
            picture: As given, if it was.
            page: As given, if it was.
            plain: Whether only what was given is written.
        """
        if plain:
            return cls(curves, picture, page)
        named = [curves.with_name(curves.name + end) for end in (".png", ".html")]
        if curves.suffix == ".json":
            named = [curves.with_suffix(end) for end in (".png", ".html")]
        return cls(curves, picture or named[0], page or named[1])


@dataclass(frozen=True)
class _Network:
    """What was, or would be, cut."""

    label: str
    config: Config
    weights: Path
    graph: "ModelGraph"


def scan(request: Request, files: Files, *, as_json: bool) -> None:
    """Scan the config's checkpoint over the validation split, or go on with a scan."""
    label, config = request.read()
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
        save_to=files.curves,
        layers=_layers(split_list(request.params) or config.prune.params),
        criterion=request.criterion or config.prune.criterion,
        local=True,
        aliases=old_names(graph.tensors),
        data=data_digest(pictures),
        progress=True,
    )
    _tell(curves, files, request, _Network(label, config, path, graph), as_json=as_json)


def _layers(given: Sequence[str]) -> Sequence[str] | None:
    from flyweight.recipe.cut import ALL

    return None if not given or tuple(given) == (ALL,) else given


def merge(files: Sequence[Path], request: Request, made: Files, *, as_json: bool) -> None:
    """Put the curves of several files into one; the originals' files are read, too.

    A page needs the network: it is made where a config is given.
    """
    from flyweight.sensitivity import merge as merge_two
    from flyweight.sensitivity import read

    first, *others = [read(file) for file in files]
    for other in others:
        first = merge_two(first, other)
    first.save(made.curves)
    network = _network(request) if request.config and made.page is not None else None
    if made.page is not None and network is None:
        say(f"note: '{made.page}' needs the network: add -c CONFIG -o weights=CHECKPOINT")
    _tell(first, made, request, network, as_json=as_json)


def _network(request: Request) -> _Network:
    label, config = request.read()
    path = checkpoint_path(label, config, request.weights)

    from flyweight.recipe.cut import trace_model
    from flyweight.recipe.session import load_model

    model, _ = load_model(path, config)
    say(f"weights: {path}")
    return _Network(label, config, path, trace_model(model.eval(), config.preprocessing))


def loss_table(curves: "Sensitivity") -> str:
    """Return the losses of all layers in per cent of the baseline; below 0 is a gain."""
    ratios = sorted({point.ratio for points in curves.curves.values() for point in points})
    rows = [("loss in % at", *(f"{ratio:g}" for ratio in ratios))]
    for layer in curves.curves:
        losses = curves.losses(layer)
        rows.append((layer, *(f"{100 * losses[r]:.1f}" if r in losses else "" for r in ratios)))
    return columns(rows)


def _tell(
    curves: "Sensitivity",
    files: Files,
    request: Request,
    network: _Network | None,
    *,
    as_json: bool,
) -> None:
    table = loss_table(curves)
    written = {"file": files.curves}
    if files.picture is not None:
        curves.draw(files.picture)
        written["picture"] = files.picture
    if files.page is not None and network is not None:
        _write_page(curves, files, request, network)
        written["page"] = files.page
    if as_json:
        losses: dict[str, Any] = {
            layer: {f"{ratio:g}": loss for ratio, loss in curves.losses(layer).items()}
            for layer in curves.curves
        }
        values = {"metric": curves.metric, "baseline": curves.baseline, "losses": losses}
        show_json({**values, **written})
        return
    names = ", ".join(str(path) for path in written.values())
    show(
        f"{curves.metric} {100 * curves.baseline:.2f} % before any cut\n\n{table}\n\nsaved {names}"
    )


def _write_page(curves: "Sensitivity", files: Files, request: Request, network: _Network) -> None:
    from flyweight.recipe.exploring import Told, cutting_of
    from flyweight.sensitivity.page import Subject, write_page

    told = Told(request.config, request.overrides)
    places = (network.weights, files.curves)
    cutting = cutting_of(told, network.config, curves, places, network.graph)
    words = shlex.join(["flyweight", *sys.argv[1:]])
    subject = Subject(network.label, words)
    write_page(curves, files.page or "", network.graph, cutting=cutting, subject=subject)


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
