"""`flyweight quantize`: a network that runtimes execute on integers."""

from collections.abc import Sequence
from dataclasses import asdict
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
    from flyweight.pipeline.precision_record import PrecisionLatency
    from flyweight.pipeline.results import Quantized

MODES = ("post", "aware")
PRECISIONS = ("int8", "auto")
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
        help="Scales are powers of two, so that the runtime computes PyTorch's bits; the same as "
        "-o quantize.exact=true. Not together with --budget or --precision auto.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Precision of layers: int8, or auto for integers only where that is measured to be "
        "faster on the runtime and this machine; default: the config's quantize.precision.",
        metavar="NAME",
    ),
]
LatencyBudget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Latency that the network may have, met with the least loss by choosing layers: "
        "latency_share=0.25 or latency_ms=10.",
        metavar="QUANTITY=NUMBER",
    ),
]
Rewrite = Annotated[
    bool,
    typer.Option(
        "--rewrite",
        help="Replace transposed convolutions whose kernel equals their stride by convolutions "
        "that compute the same; the same as -o quantize.rewrite=true.",
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
        help="Runtime that both files are made for, and that measures them: onnxruntime, openvino; "
        "default: the config's bench.runtime.",
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
    precision: Precision = "",
    budget: LatencyBudget = "",
    rewrite: Rewrite = False,
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
    _require_one_of("--mode", mode, MODES)
    _require_one_of("--precision", precision, PRECISIONS)
    given = {
        "mode": mode,
        "precision": precision,
        "budget": budget,
        "rewrite": "true" if rewrite else "",
        "learned": "pact" if use_pact else "",
        "exact": "true" if exact else "",
    }
    # As overrides, so that they must fit the rest of the section.
    chosen = [f"quantize.{key}={value}" for key, value in given.items() if value]
    _, settings = pipeline.load_config(config, [*(opt or ()), *chosen])
    section = settings.quantize.model_copy(update={"skip": tuple(skip)} if skip else {})
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


def _require_one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value and value not in allowed:
        raise ConfigError(
            f"{option} must be one of {', '.join(allowed)}. Received '{value}'. "
            f"{nearest(value, allowed)}"
        )


def _show_losses(losses: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        show_json({"layers": [{"name": name, "loss": loss} for name, loss in losses.items()]})
        return
    rows = [("layer", "squared error of the outputs")]
    rows += [(name, f"{100 * loss:.4f} %") for name, loss in losses.items()]
    show(columns(rows))


def _record(result: "Quantized") -> dict[str, object]:
    metrics = {kind: found.get(result.primary) for kind, found in result.metrics.items()}
    latency = {} if result.latency is None else {"latency": asdict(result.latency)}
    return {
        "checkpoint": result.checkpoint,
        "onnx": result.files["int8"],
        "runtime": result.runtime,
        "metric": metrics,
        "layers": {"integer": result.integer_layers, "float": dict(result.float_layers)},
        "file_bytes": dict(result.file_bytes),
        **latency,
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
    if result.latency is not None:
        lines.append(_latency_text(result.latency, title))
    lines.append(f"saved {result.checkpoint}, {result.files['int8']}")
    return "\n".join(lines)


def _latency_text(latency: "PrecisionLatency", title: str) -> str:
    low, high = latency.interval
    inference = (
        "" if latency.inference == "float32" else f", float operations in {latency.inference}"
    )
    note = f" ({latency.note})" if latency.note else ""
    if latency.is_reference:
        return f"float is fastest in {title} on this machine: {latency.float_ms:.3f} ms{note}"
    return (
        f"{latency.chosen_ms:.3f} ms in {title} on one thread ({latency.precision}{inference}), "
        f"{latency.float_ms:.3f} ms in float: {latency.ratio:.2f} times as fast, "
        f"{low:.2f} to {high:.2f}{note}"
    )
