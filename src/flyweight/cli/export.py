"""`flyweight export`: a checkpoint as an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import say, show, show_json
from flyweight.cli.options import (
    Json,
    OutputDir,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Runtime,
    Weights,
)
from flyweight.pipeline.preflight import require_end
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

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
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the export of another checkpoint.")
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
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a checkpoint as an ONNX file.

    The file's outputs are compared with PyTorch's before the file gets its name. A description
    of inputs, outputs, preprocessing and labels is written beside it. An export of another
    checkpoint is not replaced without --overwrite.
    """
    require_end(end or "raw")
    require_installed(runtime)
    source = pipeline.ModelSource(config, tuple(opt or ()), weights)
    source.find()
    cut = heavy.CutOptions(pruned_params, pruned_ratios)
    result = pipeline.export(
        source,
        output_dir,
        cut=cut,
        end=end,
        runtime=runtime,
        overwrite=overwrite,
        progress=True,
    )
    for note in result.notes:
        say(note)
    if json:
        show_json(vars(result))
        return
    worst = max(result.max_error.values(), default=0.0)
    size = result.size_bytes / 2**20
    show(f"saved {result.path} ({size:.2f} MiB), description {result.sidecar}")
    show(f"largest relative error against PyTorch {worst:.1e}")
