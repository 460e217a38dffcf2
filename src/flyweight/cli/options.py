"""Options that several commands have, with the originals' spellings."""

from pathlib import Path
from typing import Annotated

import typer

ConfigName = Annotated[
    str,
    typer.Option(
        "-c", "--config", help="A built-in name (see `models`) or a YAML file.", metavar="CONFIG"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", "--opt", help="Overrides of the config: key=value.", metavar="KEY=VALUE"),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        "--max-drop",
        "--eval_metric_loss",
        help="What each layer may cost, as a share of the metric.",
    ),
]
PrunedParams = Annotated[
    str,
    typer.Option(
        "-p",
        "--pruned-params",
        "--pruned_params",
        help="Layers, comma or space between.",
        metavar="NAMES",
    ),
]
PrunedRatios = Annotated[
    str,
    typer.Option(
        "--pruned-ratios",
        "--pruned_ratios",
        help="Share of channels to remove, one for each layer.",
        metavar="NUMBERS",
    ),
]
Criterion = Annotated[
    str,
    typer.Option("--prune-criterion", "--prune_criterion", help="How channels are scored."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Weights = Annotated[
    str, typer.Option("-w", "--weights", help="The same as -o weights=.", metavar="FILE")
]
OutputDir = Annotated[
    Path,
    typer.Option("--output-dir", "--output_dir", help="For what is written.", metavar="FOLDER"),
]
