"""`flyweight eval`: the metrics of a checkpoint on the validation split."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show, show_json
from flyweight.cli.options import (
    ConfigName,
    Json,
    Overrides,
    PrunedParams,
    PrunedRatios,
    Runtime,
    Weights,
)
from flyweight.pipeline.preflight import require_paths
from flyweight.report.text_table import metrics_table
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

MultiScale = Annotated[
    bool,
    typer.Option(
        "--multi-scale",
        "--multi_scale",
        help="Detect at several image sizes; the same as -o detect.test=multi_scale.",
    ),
]
OutputEval = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--output-eval",
        "--output_eval",
        help="Write the detections to FOLDER, as WIDER FACE's evaluation tools read them.",
        metavar="FOLDER",
    ),
]


def evaluate(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    pruned_params: PrunedParams = "",
    pruned_ratios: PrunedRatios = "",
    multi_scale: MultiScale = False,
    output_eval: OutputEval = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    json: Json = False,
) -> None:
    """Print the metrics of a checkpoint.

    A pruned checkpoint records how it was pruned, so the ratios need not be repeated. An exported
    .onnx file is evaluated as the runtime executes it; that of a detector must end in detections.
    """
    overrides = (*(opt or ()), *(["detect.test=multi_scale"] if multi_scale else []))
    require_installed(runtime)
    source = pipeline.ModelSource(config, overrides, weights)
    source.find()
    require_paths(pipeline.load_config(config, overrides)[1])
    cut = heavy.CutOptions(pruned_params, pruned_ratios)
    result = pipeline.evaluate_checkpoint(
        source, cut=cut, save_to=output_eval, runtime=runtime, progress=True
    )
    if json:
        show_json({"metrics": result.metrics, "checkpoint": result.checkpoint})
    else:
        show(metrics_table(result.metrics))
