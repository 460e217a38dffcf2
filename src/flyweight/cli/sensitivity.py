"""`flyweight sensitivity`: curves of the metric over the share of channels removed, per layer."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import note_busy_machine, say, show, show_json
from flyweight.cli.image_paths import images_of
from flyweight.cli.options import (
    CONFIG_HELP,
    Criterion,
    ForeignScan,
    Json,
    MaxDrop,
    Overrides,
    PrunedParams,
    Weights,
)
from flyweight.errors import ConfigError, PlanError
from flyweight.pipeline.preflight import require_paths
from flyweight.report.text_table import columns

if TYPE_CHECKING:
    from flyweight.config.scanning import SensitivityOptions
    from flyweight.pipeline.model_source import ModelSource
    from flyweight.pipeline.results import Scanned
    from flyweight.sensitivity import Sensitivity

ConfigOfScan = Annotated[str, typer.Option("-c", "--config", help=CONFIG_HELP, metavar="CONFIG")]
CurvesFile = Annotated[
    Path,
    typer.Option(
        "-s",
        "--sensitivities",
        "--sensitivities_file",
        help="Write sensitivity curves to FILE; resumes an interrupted scan.",
        metavar="FILE",
    ),
]
ScanRatios = Annotated[
    str,
    typer.Option(
        "-r",
        "--pruned-ratios",
        "--pruned_ratios",
        help="Shares of channels to remove, each tried on every layer.",
        metavar="NUMBERS",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode",
        help="exact: use all images; fast: use few images and give confidence intervals.",
        metavar="MODE",
    ),
]
UnlabelledImages = Annotated[
    Path | None,
    typer.Option(
        "--images",
        "--pictures",
        help="Scan on the images of FOLDER, which need no labels; less reliable than a metric.",
        metavar="FOLDER",
    ),
]
Ray = Annotated[
    str,
    typer.Option(
        "--ray", help="Address of a Ray cluster to spread the scan over.", metavar="ADDRESS"
    ),
]
Merge = Annotated[
    list[Path] | None,
    typer.Option(
        "--merge",
        help="Merge the curves of FILE instead of scanning; repeat for each file.",
        metavar="FILE",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Write the plot of the curves to FILE; default: beside the curves, as .png.",
        metavar="FILE",
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        help="Write the plan explorer to FILE; default: beside the curves, as .html.",
        metavar="FILE",
    ),
]
TableOfPage = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        help="Latency table of bench --layers; lets the plan explorer limit latency.",
        metavar="FILE",
    ),
]
NoPlot = Annotated[
    bool,
    typer.Option(
        "--no-plot", help="Write neither plot nor plan explorer, unless --plot or --page names it."
    ),
]


def sensitivity(
    config: ConfigOfScan = "",
    opt: Overrides = None,
    weights: Weights = "",
    file: CurvesFile = Path("sensitivities.json"),
    pruned_params: PrunedParams = "",
    pruned_ratios: ScanRatios = "0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9",
    criterion: Criterion = "",
    mode: Mode = "exact",
    max_drop: MaxDrop = 0.05,
    images: UnlabelledImages = None,
    ray: Ray = "",
    merge: Merge = None,
    foreign_scan: ForeignScan = False,
    plot: Plot = None,
    page: Page = None,
    latency_table: TableOfPage = None,
    no_plot: NoPlot = False,
    json: Json = False,
) -> None:
    """Measure how pruning affects the metric.

    Each layer is pruned alone, at several ratios, in one pass over the validation images. The
    curves are plotted, and a page lets you turn limits into pruning plans. Prune by the curves
    with: prune --sensitivities FILE --max-drop 0.05
    """
    files = Files(file, plot, page, latency_table)
    if not no_plot:
        files = files.beside_curves()
    source = pipeline.ModelSource(config, tuple(opt or ()), weights)
    if merge:
        _merge(merge, files, source, foreign=foreign_scan, as_json=json)
        return
    if not config:
        raise ConfigError("A scan must have a config. Received none. Add: -c CONFIG")
    options = heavy.SensitivityOptions(
        ratios=_ratios(pruned_ratios),
        layers=tuple(heavy.split_list(pruned_params)),
        criterion=criterion,
        mode=mode,
        max_drop=max_drop,
        images=tuple(images_of([images])) if images is not None else (),
        ray=ray,
    )
    _scan(source, options, files, as_json=json)


@dataclass(frozen=True)
class Files:
    """Files of a scan.

    Attributes:
        curves: Gets the curves, as JSON.
        plot: Gets the plot of the curves, as PNG; None for none.
        page: Gets the curves and the plan explorer, as HTML; None for none.
        latency_table: Is read for the page; None for none.
    """

    curves: Path
    plot: Path | None
    page: Path | None
    latency_table: Path | None

    def beside_curves(self) -> "Files":
        """Return the files with a plot and a page, by default named after the curves."""
        named = [self.curves.with_name(self.curves.name + end) for end in (".png", ".html")]
        if self.curves.suffix == ".json":
            named = [self.curves.with_suffix(end) for end in (".png", ".html")]
        return replace(self, plot=self.plot or named[0], page=self.page or named[1])


def _scan(
    source: "ModelSource", options: "SensitivityOptions", files: Files, *, as_json: bool
) -> None:
    """Scan the config's checkpoint over the validation split, or resume a scan."""
    name, settings = pipeline.load_config(source.config, source.overrides)
    _, weights = source.find()
    if not options.images:
        require_paths(settings)
    if files.latency_table is not None:
        heavy.read_table(files.latency_table)  # An unusable table is refused before the scan.
    settings = settings.model_copy(update={"weights": str(weights)})
    note_busy_machine()
    result = pipeline.scan(name, settings, files.curves, options, progress=True)
    _show_result(result, files, source, as_json=as_json)


def _merge(
    merged: list[Path], files: Files, source: "ModelSource", *, foreign: bool, as_json: bool
) -> None:
    """Merge the curves of several files; files of the original tools are read, too.

    A page needs the network: it is written where a config is given.
    """
    network = source if source.config and files.page is not None else None
    result = pipeline.merge_scans(merged, files.curves, network, foreign=foreign, progress=True)
    if files.page is not None and network is None:
        say(f"note: '{files.page}' needs the network: add -c CONFIG -o weights=CHECKPOINT")
    _show_result(result, files, network, foreign=foreign, as_json=as_json)


def _show_result(
    result: "Scanned",
    files: Files,
    source: "ModelSource | None",
    *,
    foreign: bool = False,
    as_json: bool,
) -> None:
    """Plot the curves, write the page, and print the losses."""
    curves, table = result.curves, loss_table(result.curves)
    written = {"file": result.file}
    if files.plot is not None:
        curves.draw(files.plot)
        written["picture"] = files.plot  # The key that version 0.1.0 printed.
    if files.page is not None and source is not None:
        command = shlex.join(["flyweight", *sys.argv[1:]])
        pipeline.write_scan_page(
            result, source, files.page, command, files.latency_table, foreign=foreign
        )
        written["page"] = files.page
    if as_json:
        losses: dict[str, Any] = {
            layer: {f"{ratio:g}": loss for ratio, loss in curves.losses(layer).items()}
            for layer in curves.curves
        }
        values = {"metric": curves.metric, "baseline": curves.baseline, "losses": losses}
        show_json({**values, **written})
        return
    baseline = f"{curves.metric} {100 * curves.baseline:.2f} % before any cut"
    show(f"{baseline}\n\n{table}\n\nsaved {', '.join(map(str, written.values()))}")


def loss_table(curves: "Sensitivity") -> str:
    """Return the losses of all layers in percent of the baseline; below 0 is a gain."""
    ratios = sorted({point.ratio for points in curves.curves.values() for point in points})
    rows = [("loss in % at", *(f"{ratio:g}" for ratio in ratios))]
    for layer in curves.curves:
        losses = curves.losses(layer)
        rows.append((layer, *(f"{100 * losses[r]:.1f}" if r in losses else "" for r in ratios)))
    return columns(rows)


def _ratios(text: str) -> tuple[float, ...]:
    try:
        ratios = tuple(float(word) for word in heavy.split_list(text))
    except ValueError:
        ratios = ()
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise PlanError(
            f"Ratios must be numbers between 0 and 1. Received '{text}' in --pruned-ratios. "
            'Write for example "0.25 0.5 0.75".'
        )
    return ratios
