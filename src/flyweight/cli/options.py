"""Options that several commands share, with the spellings of the original tools as aliases."""

from pathlib import Path
from typing import Annotated

import typer

CONFIG_HELP = "Config: a built-in name (see `flyweight models`) or a YAML file."

ConfigName = Annotated[str, typer.Option("-c", "--config", help=CONFIG_HELP, metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--opt",
        help="Override config values; several may follow one -o.",
        metavar="KEY=VALUE",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "-w", "--weights", help="Checkpoint to use; the same as -o weights=FILE.", metavar="FILE"
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        "--eval_metric_loss",
        help="Largest loss that each layer may cause alone, as a share of the metric.",
        metavar="SHARE",
    ),
]
PrunedParams = Annotated[
    str,
    typer.Option(
        "-p",
        "--pruned-params",
        "--pruned_params",
        help="Layers to prune, by weight name, separated by commas or spaces.",
        metavar="NAMES",
    ),
]
PrunedRatios = Annotated[
    str,
    typer.Option(
        "--pruned-ratios",
        "--pruned_ratios",
        help="Share of channels to remove from each layer, in the order of --pruned-params.",
        metavar="NUMBERS",
    ),
]
Criterion = Annotated[
    str,
    typer.Option(
        "--prune-criterion",
        "--prune_criterion",
        help="Criterion that scores channels, such as l1_norm, geometry_median or taylor; "
        "default: the config's prune.criterion.",
        metavar="NAME",
    ),
]
ForeignScan = Annotated[
    bool,
    typer.Option(
        "--foreign-scan",
        help="Use a scan although it is of other weights, or of another network, input or data.",
    ),
]
Resume = Annotated[
    bool, typer.Option("-r", "--resume", help="Continue an interrupted run instead of restarting.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutputDir = Annotated[
    Path,
    typer.Option(
        "--output-dir", "--output_dir", help="Folder for the written files.", metavar="FOLDER"
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="Runtime that executes the exported file: onnxruntime or openvino.",
        metavar="NAME",
    ),
]
