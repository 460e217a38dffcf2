"""Sensitivity scans from the command line: scan, or merge scans, and draw the curves."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight import on_demand, pipeline
from flyweight.cli.console import columns, say, show, show_json
from flyweight.cli.image_paths import images_of
from flyweight.config.cut_options import split_list
from flyweight.config.scanning import SensitivityOptions
from flyweight.errors import PlanError
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.preflight import require_paths

if TYPE_CHECKING:
    from flyweight.pipeline.results import Scanned
    from flyweight.sensitivity import Sensitivity

_READ_TABLE = "flyweight.measuring.latency_table:read_table"


@dataclass(frozen=True)
class How:
    """How the command line wants to scan.

    Attributes:
        mode: "exact" or "fast".
        max_drop: What a layer may cost; the fast mode spends little on layers far from it.
        images: A folder of images without labels to scan on instead of the validation split.
        ray: Address of a Ray cluster.
    """

    mode: str = "exact"
    max_drop: float = 0.05
    images: Path | None = None
    ray: str = ""


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

    @property
    def source(self) -> ModelSource:
        """The network."""
        return ModelSource(self.config, self.overrides, self.weights)

    def options(self) -> SensitivityOptions:
        """Return how to scan.

        Raises:
            PlanError: A value is invalid.
            DataError: There are no images.
        """
        how = self.how
        return SensitivityOptions(
            ratios=_ratios(self.ratios),
            layers=tuple(split_list(self.params)),
            criterion=self.criterion,
            mode=how.mode,
            max_drop=how.max_drop,
            images=tuple(images_of([how.images])) if how.images is not None else (),
            ray=how.ray,
        )


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
    image: Path | None
    page: Path | None
    latency_table: Path | None = None

    @classmethod
    def beside(cls, curves: Path, image: Path | None, page: Path | None, *, plain: bool) -> "Files":
        """Return what was asked for, else files that are named after the curves.

        Args:
            curves: As given.
            image: As given, if it was.
            page: As given, if it was.
            plain: Whether only what was given is written.
        """
        if plain:
            return cls(curves, image, page)
        named = [curves.with_name(curves.name + end) for end in (".png", ".html")]
        if curves.suffix == ".json":
            named = [curves.with_suffix(end) for end in (".png", ".html")]
        return cls(curves, image or named[0], page or named[1])


def scan(request: Request, files: Files, *, as_json: bool) -> None:
    """Scan the config's checkpoint over the validation split, or resume a scan."""
    source = request.source
    if source.named is None:
        raise PlanError("A scan must have a config. Received none. Add: -c CONFIG")
    label, config = source.named
    _, weights = source.find()
    options = request.options()
    if not options.images:
        require_paths(config)
    if files.latency_table is not None:
        on_demand.load(_READ_TABLE)(
            files.latency_table
        )  # An unusable table is refused before the scan.
    config = config.model_copy(update={"weights": str(weights)})
    found = pipeline.scan(label, config, files.curves, options, progress=True)
    _finish(found, files, source, as_json=as_json)


def merge(files: Sequence[Path], request: Request, made: Files, *, as_json: bool) -> None:
    """Merge the curves of several files; files of the original tools are read, too.

    A page needs the network: it is written where a config is given.
    """
    source = request.source if request.config and made.page is not None else None
    found = pipeline.merge_scans(files, made.curves, source, progress=True)
    if made.page is not None and source is None:
        say(f"note: '{made.page}' needs the network: add -c CONFIG -o weights=CHECKPOINT")
    _finish(found, made, source, as_json=as_json)


def loss_table(curves: "Sensitivity") -> str:
    """Return the losses of all layers in per cent of the baseline; below 0 is a gain."""
    ratios = sorted({point.ratio for points in curves.curves.values() for point in points})
    rows = [("loss in % at", *(f"{ratio:g}" for ratio in ratios))]
    for layer in curves.curves:
        losses = curves.losses(layer)
        rows.append((layer, *(f"{100 * losses[r]:.1f}" if r in losses else "" for r in ratios)))
    return columns(rows)


def _finish(found: "Scanned", files: Files, source: ModelSource | None, *, as_json: bool) -> None:
    """Draw the curves, write the page, print the results."""
    curves, table = found.curves, loss_table(found.curves)
    written = {"file": found.file}
    if files.image is not None:
        curves.draw(files.image)
        written["picture"] = files.image
    if files.page is not None and source is not None:
        command = shlex.join(["flyweight", *sys.argv[1:]])
        pipeline.write_scan_page(found, source, files.page, command, files.latency_table)
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
