"""`flyweight train`, `sensitivity` and `prune`: the commands that take long."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import heavy
from flyweight.cli.console import show
from flyweight.cli.options import (
    CONFIG_HELP,
    ConfigName,
    Criterion,
    Json,
    MaxDrop,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Resume,
    Weights,
)
from flyweight.errors import ConfigError

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
Sensitivities = Annotated[
    str,
    typer.Option(
        "--sensitivities",
        "--sensitivities_file",
        help="Choose ratios from the curves in FILE; DEFAULT takes the curves that come with "
        "flyweight.",
        metavar="FILE",
    ),
]
DropOfCut = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        "--eval_metric_loss",
        help="Largest loss that each layer may cause alone, as a share of the metric; "
        "default: 0.05 where --sensitivities is given without --budget.",
        metavar="SHARE",
    ),
]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Keep QUANTITY within NUMBER: macs, params or size_bytes (below 1 the share kept, "
        "from 1000 on an amount), latency_ms or latency_share. By the curves of --sensitivities; "
        "without them, by a ranking of all channels.",
        metavar="QUANTITY=NUMBER",
    ),
]
TableOfBudget = Annotated[
    str,
    typer.Option(
        "--latency-table",
        help="Latency table of bench --layers, for a latency budget.",
        metavar="FILE",
    ),
]
PrintParams = Annotated[
    bool,
    typer.Option(
        "-P", "--print-params", "--print_params", help="Print parameter names and shapes, and exit."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what the plan saves, and exit; needs neither data nor weights."
    ),
]
FlopsConvention = Annotated[
    str,
    typer.Option(
        "--flops-convention",
        help="How to count FLOPs: real (true shapes), or paddle (as the original tools printed).",
        metavar="NAME",
    ),
]
EvaluateFirst = Annotated[
    bool, typer.Option("--eval", help="Evaluate the pruned network before fine-tuning, too.")
]
Repair = Annotated[
    bool | None,
    typer.Option(
        "--repair/--no-repair",
        help="Refit the remaining weights before fine-tuning, without labels; default: the "
        "config's prune.repair.",
    ),
]
Finetune = Annotated[
    bool, typer.Option("--finetune/--no-finetune", help="Train the pruned network.")
]


def train(
    config: ConfigName, opt: Overrides = None, resume: Resume = False, json: Json = False
) -> None:
    """Train; save best and last checkpoint."""
    heavy.train(config, opt or [], resume=resume, as_json=json)


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
    words = (config, tuple(opt or ()), weights, pruned_params, pruned_ratios, criterion)
    request = heavy.ScanRequest(*words, heavy.ScanHow(mode, max_drop, images, ray))
    files = heavy.ScanFiles.beside(file, plot, page, plain=no_plot)
    files = replace(files, latency_table=latency_table)
    if merge:
        heavy.merge_scans(merge, request, files, as_json=json)
        return
    if not config:
        raise ConfigError("A scan must have a config. Received none. Add: -c CONFIG")
    heavy.scan(request, files, as_json=json)


def prune(
    config: ConfigName,
    opt: Overrides = None,
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    sensitivities: Sensitivities = "",
    max_drop: DropOfCut = None,
    budget: Budget = "",
    latency_table: TableOfBudget = "",
    criterion: Criterion = "",
    print_params: PrintParams = False,
    dry_run: DryRun = False,
    flops_convention: FlopsConvention = "real",
    evaluate_first: EvaluateFirst = False,
    repair: Repair = None,
    finetune: Finetune = True,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Prune channels, then fine-tune.

    The saved checkpoint records how it was pruned, so the ratios are not needed again.
    """
    if print_params:
        list_parameters(config, opt or [])
        return
    said = (pruned_params, pruned_ratios, sensitivities, max_drop, budget, latency_table, criterion)
    request = heavy.PruneRequest(config, tuple(opt or ()), heavy.CutOptions(*said))
    if dry_run:
        heavy.dry_run(request, flops_convention, as_json=json)
    else:
        options = heavy.PruneOptions(evaluate_first, repair, finetune, resume, json)
        heavy.prune(request, options)


def list_parameters(name: str, overrides: Sequence[str]) -> None:
    """Print parameter names and shapes in the format of the original tools."""
    _, settings = heavy.load_config(name, overrides)
    for parameter, tensor in heavy.weightless(settings).named_parameters():
        show(f"parameter name: {parameter}\tshape: {tuple(tensor.shape)}")
