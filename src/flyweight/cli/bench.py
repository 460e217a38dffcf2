"""`flyweight bench`: latency, memory and size of files, layers one by one, integer or float."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import note_busy_machine, show, show_json
from flyweight.cli.options import Json, Overrides
from flyweight.errors import ConfigError
from flyweight.pipeline.preflight import weights_path
from flyweight.report.text_table import columns
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME, require_installed

if TYPE_CHECKING:
    from flyweight.pipeline.results import LayersTimed
    from flyweight.pipeline.stages.layers import LayersOptions

_SECONDS, _RUNS = 5.0, 100

Files = Annotated[list[Path] | None, typer.Argument(help="Exported ONNX files.")]
Threads = Annotated[
    str,
    typer.Option(
        "--threads",
        help="Thread counts to measure with; default: 1,2 for files, 1 for layers.",
        metavar="NUMBERS",
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        "--seconds",
        help="Measuring time of each file at each thread count, or of the network of --layers.",
        metavar="NUMBER",
    ),
]
Runs = Annotated[
    int,
    typer.Option(
        "--runs", help="Number of timed inferences to aim for, for each file.", metavar="NUMBER"
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="Shape of an input whose size is not fixed in the file, such as images=1x3x320x320.",
        metavar="NAME=SIZES",
    ),
]
Layers = Annotated[
    bool,
    typer.Option(
        "--layers",
        help="Time the layers of the network of -c CONFIG, or of -o weights=CHECKPOINT, at many "
        "channel counts.",
    ),
]
Operators = Annotated[
    bool,
    typer.Option(
        "--operators",
        help="Print how the runtime computes each layer of one ONNX file of any tool: with "
        "integers or in float, and why in float. Nothing is timed.",
    ),
]
ConfigOfLayers = Annotated[
    str,
    typer.Option("-c", "--config", help="Config of the network for --layers.", metavar="CONFIG"),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        help="Write the measurements to FILE, which `flyweight report` reads as measurements.json "
        "of a run folder; with --layers the latency table, which continues; default: layers.json.",
        metavar="FILE",
    ),
]
Runtimes = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="Runtime to measure on: onnxruntime or openvino; for files also several, "
        "separated by commas.",
        metavar="NAMES",
    ),
]


def bench(
    files: Files = None,
    threads: Threads = "",
    seconds: Seconds = _SECONDS,
    runs: Runs = _RUNS,
    shape: Shape = None,
    layers: Layers = False,
    operators: Operators = False,
    config: ConfigOfLayers = "",
    opt: Overrides = None,
    save: Save = None,
    runtime: Runtimes = DEFAULT_RUNTIME,
    json: Json = False,
) -> None:
    """Measure latency, memory and size.

    Each file runs in a process of its own, and the processes take turns. With --layers, the
    command makes the latency table that latency budgets need. With --operators, it prints which
    layers of a file run on integers.
    """
    if operators:
        timing = threads or shape or (seconds, runs) != (_SECONDS, _RUNS)
        file = _one_file(files or (), others=bool(layers or config or opt or save or timing))
        census = heavy.take_census(file, runtime=runtime)
        if json:
            show_json(heavy.census_records(census))
        else:
            show(heavy.census_text(census))
        return
    if layers:
        require_installed(runtime)
        count = _one_count(threads or "1")
        if not (config or opt):
            raise ConfigError(
                "--layers must have a network. Received none. Add: -c CONFIG, or "
                "-o weights=CHECKPOINT"
            )
        options = pipeline.LayersOptions(count, seconds, runtime)
        _show_layers(_timed(config, opt or (), save or Path("layers.json"), options), as_json=json)
        return
    if not files:
        raise ConfigError(
            "There must be something to measure. Received no files. Name ONNX files, or time a "
            "network's layers with: --layers -c CONFIG, or --layers -o weights=CHECKPOINT"
        )
    counts, shapes = _counts(threads or "1,2"), _shapes(shape or ())
    runtimes = [name.strip() for name in runtime.split(",")]
    for name in runtimes:
        require_installed(name)
    note_busy_machine()
    protocol = heavy.BenchConfig(seconds=seconds, runs=runs, shapes=shapes)
    rows = pipeline.bench(files, threads=counts, runtime=runtimes, config=protocol, progress=True)
    if save is not None:
        pipeline.save_measurements(rows, save)
    if json:
        show_json(heavy.measurement_records(rows))
    else:
        show(heavy.measurement_table(rows))


def _timed(
    config: str, overrides: Sequence[str], save: Path, options: "LayersOptions"
) -> "LayersTimed":
    """Time the layers of a config's network, or of a checkpoint, which describes itself."""
    if config:
        _, settings = pipeline.load_config(config, overrides)
        if settings.weights:
            weights_path(settings.weights)
        return pipeline.time_layers(settings, save, options, progress=True)
    _, path = pipeline.ModelSource("", tuple(overrides)).find()
    return pipeline.time_layers_of_checkpoint(path, save, options, progress=True)


def _one_file(files: Sequence[Path], *, others: bool) -> Path:
    """Return the file of --operators, which takes nothing else but a runtime."""
    if others:
        raise ConfigError(
            "--operators times nothing, so it must come with a file, --runtime and --json alone. "
            "Received another option. "
            "Write: flyweight bench FILE --operators"
        )
    if len(files) != 1:
        raise ConfigError(
            f"--operators must have one ONNX file. Received {len(files) or 'none'}. "
            "Write: flyweight bench FILE --operators"
        )
    return files[0]


def _counts(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(
            f"--threads must list whole numbers above 0. Received '{text}'. Write: --threads 1,2"
        )
    return [int(part) for part in parts]


def _one_count(text: str) -> int:
    counts = _counts(text)
    if len(counts) > 1:
        raise ConfigError(
            "A table of layers must be of one thread count. Received "
            f"--threads {text}. Make one table for each."
        )
    return counts[0]


def _shapes(texts: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = sizes.lower().split("x")
        if not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ConfigError(
                f"--shape must read NAME=SIZExSIZE. Received '{text}'. Write: images=1x3x320x320"
            )
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def _show_layers(result: "LayersTimed", *, as_json: bool) -> None:
    """Print the latency of the whole network and of its slowest layers."""
    table, graph = result.table, result.graph
    prices = heavy.LatencyPrices.of(graph, table)
    whole, in_layers, full = prices.predict_ms({}), prices.sum_ms({}), prices.full()
    slowest = sorted(prices.layers, key=lambda price: price.under(full), reverse=True)
    times = [(price.layer, price.under(full)) for price in slowest]
    count = sum(len(points) for points in table.layers.values())
    if as_json:
        show_json(
            {
                "step": table.step,
                "excess": {} if table.found is None else dict(table.found.excess),
                "dense_ms": whole,
                "layers_ms": {layer.name: time for layer, time in times},
                "measured": count,
                "not_timed": dict(graph.costs.uncounted),
                "made_on": dict(table.made_on),
                "file": result.file,
            }
        )
        return
    rows = [("slowest layers", "in", "out", "ms")]
    for layer, time in times[:8]:
        reads, makes = layer.full
        rows.append((layer.name, str(reads), str(makes), f"{time:.3f}"))
    show(f"{columns(rows)}\n\n{table.found}")
    show(f"layers {in_layers:.3f} ms, whole network {whole:.3f} ms; {count} times in {result.file}")
