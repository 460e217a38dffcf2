"""`sensitivity`: what each layer's channels are worth to the metric; plans are made from it."""

import random
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.cli.console import columns, say, show, show_json
from flyweight.cli.image_paths import images_of
from flyweight.config.cut_options import split_list
from flyweight.config.cuts import ALL
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.errors import PlanError, nearest
from flyweight.pipeline.preflight import checkpoint_path, require_paths

if TYPE_CHECKING:
    from torch import nn

    from flyweight.graph import ModelGraph
    from flyweight.sensitivity import Sensitivity


MODES = ("exact", "fast")


@dataclass(frozen=True)
class How:
    """How the command line wants to scan.

    Attributes:
        mode: One of `MODES`.
        max_drop: What a layer may cost; fast mode looks no further at what is clear of it.
        images: A folder without labels to scan on instead of the validation split.
        ray: Address of a Ray cluster.
    """

    mode: str = "exact"
    max_drop: float = 0.05
    pictures: Path | None = None
    ray: str = ""

    def require_sound(self) -> None:
        """Raise PlanError where this cannot be meant."""
        if self.mode not in MODES:
            raise PlanError(
                f"A scan's mode must be one of {', '.join(MODES)}. Received '{self.mode}' in "
                f"--mode. {nearest(self.mode, MODES)}"
            )
        if self.mode == "fast" and self.ray:
            raise PlanError(
                "A scan must be fast or spread over a cluster. Received --mode fast and --ray. "
                "Leave one of them out."
            )
        if self.mode == "fast" and not 0 < self.max_drop < 1:
            raise PlanError(
                f"--max-drop must be a share between 0 and 1. Received {self.max_drop:g}. "
                "0.05 allows each layer to cost five per cent of the metric."
            )


@dataclass(frozen=True)
class Request:
    """What the command line asks to scan."""

    config: str
    overrides: tuple[str, ...]
    weights: str
    params: str
    ratios: str
    criterion: str
    how: How = How()

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
        image: The curves drawn, as PNG; None for none.
        page: The curves and the plan explorer, as HTML; None for none.
        latency_table: Not written: of the layers' times, for the page.
    """

    curves: Path
    picture: Path | None
    page: Path | None
    latency_table: Path | None = None

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
    how = request.how
    how.require_sound()
    if how.pictures is None:
        require_paths(config)
    ratios = _ratios(request.ratios)
    if files.latency_table is not None:
        from flyweight.measuring.latency_table import read_table

        read_table(files.latency_table)  # a scan takes long: what cannot be drawn is told before it

    from flyweight.pipeline.network_plans import trace_model
    from flyweight.sensitivity import FastScanSettings
    from flyweight.sensitivity import scan as scan_layers
    from flyweight.zoo.sources.old_names import old_names

    model, judged = _judged(label, config, path, how)
    say(f"weights: {path}")
    graph = trace_model(model.eval(), config.preprocessing)
    curves = scan_layers(
        graph,
        model,
        judged.batches,
        judged.metric,
        ratios=ratios,
        save_to=files.curves,
        layers=_layers(split_list(request.params) or config.prune.params),
        criterion=request.criterion or config.prune.criterion,
        local=True,
        aliases=old_names(graph.tensors),
        data=judged.digest,
        measured_on=judged.name,
        fast=FastScanSettings(max_drop=how.max_drop) if how.mode == "fast" else None,
        ray=how.ray,
        progress=True,
    )
    _tell(curves, files, request, _Network(label, config, path, graph), as_json=as_json)


@dataclass(frozen=True)
class _Judged:
    """Images, and what is measured on them."""

    batches: Any
    metric: Any
    digest: str
    name: str


def _judged(label: str, config: Config, path: Path, how: How) -> tuple["nn.Module", _Judged]:
    from flyweight.pipeline.inputs import load_model

    model, found = load_model(path, config)
    if how.pictures is not None:
        from flyweight.data.unlabelled import ImageBatches

        paths = images_of([how.pictures])
        random.Random(0).shuffle(paths)
        kind = "feature_error" if found.task == "detect" else "kl"
        say(f"note: no labels: agreement ({kind}) is weaker than a metric")
        files = ImageBatches(paths, config.preprocessing, config.eval_batch_size)
        return model, _Judged(files, kind, "", f"{how.pictures}, {len(paths)} images")
    from flyweight.data.samples.strata import stratified_order
    from flyweight.digests import digest_of_images
    from flyweight.pipeline.inputs import open_val, require_same_labels, task_of, val_batches

    pictures = open_val(config, save_dir=Path(config.save_dir) / label)
    require_same_labels(found, pictures.labels, path)
    order = stratified_order(pictures) if how.mode == "fast" else None
    task = task_of(model, pictures.labels, config)
    batches = val_batches(config, pictures, order=order)
    name = f"{pictures.name}, {len(pictures)} images"
    return model, _Judged(batches, task, digest_of_images(pictures), name)


def _layers(given: Sequence[str]) -> Sequence[str] | None:
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

    from flyweight.pipeline.inputs import load_model
    from flyweight.pipeline.network_plans import trace_model

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
    from flyweight.pipeline.explorer_inputs import ConfigSource, cutting_of
    from flyweight.sensitivity.page import Subject, write_page

    told = ConfigSource(request.config, request.overrides)
    places = (network.weights, files.curves)
    table = files.latency_table
    cutting = cutting_of(told, network.config, curves, places, network.graph, table)
    words = shlex.join(["flyweight", *sys.argv[1:]])
    subject = Subject(network.label, words)
    write_page(curves, files.page or "", network.graph, cutting=cutting, subject=subject)


def _ratios(text: str) -> tuple[float, ...]:

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
