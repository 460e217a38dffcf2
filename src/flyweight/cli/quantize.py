"""`flyweight quantize`: a network that runtimes execute on integers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import pipeline
from flyweight.cli.console import note_busy_machine, show, show_json
from flyweight.cli.options import ConfigName, Json, Overrides, Resume, Weights
from flyweight.errors import ConfigError, nearest
from flyweight.pipeline.preflight import require_paths
from flyweight.report.text_table import columns
from flyweight.runtimes.runtime_table import RUNTIMES, require_installed

if TYPE_CHECKING:
    from flyweight.pipeline.results import Quantized

MODES = ("post", "aware")
KINDS = ("float", "int8")

ModeOfQuantization = Annotated[
    str,
    typer.Option(
        "--mode",
        help="How: post calibrates on a few images, aware trains afterwards; default: the config's "
        "quantize.mode.",
        metavar="MODE",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(
        "--skip",
        "--not-quant-pattern",
        "--not_quant_pattern",
        help="Layers that stay float, by a part of their names or a pattern; several may follow.",
        metavar="PATTERN",
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Scales are powers of two, so that ONNX Runtime computes PyTorch's bits; the same as "
        "-o quantize.exact=true.",
    ),
]
UsePact = Annotated[
    bool,
    typer.Option(
        "--use-pact",
        "--use_pact",
        help="Train the ends of ranges by PACT; the same as -o quantize.learned=pact.",
    ),
]
SensitivityOfLayers = Annotated[
    bool,
    typer.Option(
        "--sensitivity",
        help="Print what the quantization of each layer alone costs, and exit.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="Checkpoint to write; the ONNX files go beside it; default: quantized.safetensors in "
        "the run folder.",
        metavar="FILE",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the quantized network of another checkpoint.")
]
RuntimeOfFiles = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="Runtime that measures both files: onnxruntime or openvino; default: the config's "
        "bench.runtime.",
        metavar="NAME",
    ),
]


def quantize(
    config: ConfigName,
    opt: Overrides = None,
    weights: Weights = "",
    mode: ModeOfQuantization = "",
    skip: Skip = None,
    use_pact: UsePact = False,
    exact: Exact = False,
    sensitivity: SensitivityOfLayers = False,
    output: Output = None,
    runtime: RuntimeOfFiles = "",
    resume: Resume = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Quantize a network; measure what that costs.

    Writes a checkpoint, and the float and the quantized network as ONNX files. Both files are
    evaluated as the runtime executes them. The quantized network of another checkpoint is not
    replaced without --overwrite, and nothing is written where a layer does not run as planned.
    """
    source = pipeline.ModelSource(config, tuple(opt or ()), weights)
    _, settings = pipeline.load_config(config, opt or ())
    if mode and mode not in MODES:
        raise ConfigError(
            f"--mode must be one of {', '.join(MODES)}. Received '{mode}'. {nearest(mode, MODES)}"
        )
    given = {
        "mode": mode,
        "skip": tuple(skip or ()),
        "learned": "pact" if use_pact else "",
        "exact": exact,
    }
    changes = {key: value for key, value in given.items() if value}
    section = settings.quantize.model_copy(update=changes)
    bench = settings.bench.model_copy(update={"runtime": runtime} if runtime else {})
    require_installed(bench.runtime)
    settings = settings.model_copy(update={"quantize": section, "bench": bench})
    source.find()
    require_paths(settings)
    note_busy_machine()
    if sensitivity:
        _show_losses(pipeline.quantization_losses(source, settings, progress=True), as_json=json)
        return
    options = pipeline.QuantizeOptions(str(output or ""))
    how = {"resume": resume, "overwrite": overwrite}
    result = pipeline.quantize(source, settings, options, **how, progress=True)
    if json:
        show_json(_record(result))
    else:
        show(_text(result))


def _show_losses(losses: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        show_json({"layers": [{"name": name, "loss": loss} for name, loss in losses.items()]})
        return
    rows = [("layer", "squared error of the outputs")]
    rows += [(name, f"{100 * loss:.4f} %") for name, loss in losses.items()]
    show(columns(rows))


def _record(result: "Quantized") -> dict[str, object]:
    metrics = {kind: found.get(result.primary) for kind, found in result.metrics.items()}
    return {
        "checkpoint": result.checkpoint,
        "onnx": result.files["int8"],
        "runtime": result.runtime,
        "metric": metrics,
        "layers": {"integer": result.integer_layers, "float": dict(result.float_layers)},
        "file_bytes": dict(result.file_bytes),
    }


def _text(result: "Quantized") -> str:
    rows = [("", *KINDS)]
    for name in result.metrics["int8"]:
        values = [result.metrics[kind].get(name, float("nan")) for kind in KINDS]
        rows.append((name, f"{100 * values[0]:.2f} %", f"{100 * values[1]:.2f} %"))
    sizes = [result.file_bytes[kind] / 2**20 for kind in KINDS]
    rows.append(("file", f"{sizes[0]:.2f} MiB", f"{sizes[1]:.2f} MiB"))
    for step in result.steps:
        before, after = (f"{100 * value:.2f} %" for value in (step.before, step.after))
        rows.append((step.name, before, after))
    title = RUNTIMES[result.runtime].title
    every = result.integer_layers + len(result.float_layers)
    lines = [
        columns(rows),
        f"{result.integer_layers} of {every} layers run on integers in {title}",
        *(f"float: {name}: {reason}" for name, reason in result.float_layers.items()),
    ]
    lines.append(f"saved {result.checkpoint}, {result.files['int8']}")
    return "\n".join(lines)
