"""`flyweight export`: a checkpoint as an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import heavy
from flyweight.cli.options import (
    Json,
    OutputDir,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Runtime,
    Weights,
)
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME

ConfigOfModel = Annotated[
    str,
    typer.Option(
        "-c",
        "--config",
        help="Config that names the exported file and has images to compare on; optional.",
        metavar="CONFIG",
    ),
]
End = Annotated[
    str,
    typer.Option(
        "--end",
        help="Last step in the file: detections (decoding and NMS), decoded or raw; "
        "default: the first of these that the task has.",
        metavar="NAME",
    ),
]


def export(
    config: ConfigOfModel = "",
    opt: Overrides = None,
    weights: Weights = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    output_dir: OutputDir = Path("output"),
    end: End = "",
    runtime: Runtime = DEFAULT_RUNTIME,
    json: Json = False,
) -> None:
    """Write a checkpoint as an ONNX file.

    The file's outputs are compared with PyTorch's before the file gets its name. A description
    of inputs, outputs, preprocessing and labels is written beside it.
    """
    source = heavy.Source(config, tuple(opt or ()), weights)
    ratios = heavy.CutOptions(pruned_params, pruned_ratios)
    heavy.export(source, ratios, output_dir, end=end, runtime=runtime, as_json=json)
