"""`flyweight bench`: latency, memory and size of exported files, or of each layer of a network."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import heavy
from flyweight.cli.options import Json, Overrides
from flyweight.errors import ConfigError
from flyweight.runtimes.runtime_table import DEFAULT_RUNTIME

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
        "--layers", help="Time the layers of the network of -c CONFIG at many channel counts."
    ),
]
ConfigOfLayers = Annotated[
    str,
    typer.Option("-c", "--config", help="Config of the network for --layers.", metavar="CONFIG"),
]
Save = Annotated[
    Path,
    typer.Option(
        "--save",
        help="Write the latency table of --layers to FILE; continues an interrupted table.",
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
    seconds: Seconds = 5.0,
    runs: Runs = 100,
    shape: Shape = None,
    layers: Layers = False,
    config: ConfigOfLayers = "",
    opt: Overrides = None,
    save: Save = Path("layers.json"),
    runtime: Runtimes = DEFAULT_RUNTIME,
    json: Json = False,
) -> None:
    """Measure latency, memory and size.

    Each file runs in a process of its own, and the processes take turns. With --layers, the
    command makes the latency table that latency budgets need.
    """
    if layers:
        count = heavy.one_count(threads or "1")
        request = heavy.LayersRequest(config, tuple(opt or ()), count, seconds, runtime)
        heavy.measure_layers(request, save, as_json=json)
        return
    if not files:
        raise ConfigError(
            "There must be something to measure. Received no files. Name ONNX files, or time a "
            "network's layers with: --layers -c CONFIG"
        )
    protocol = heavy.Protocol(seconds, runs, tuple(shape or ()), runtime)
    heavy.bench(files, threads or "1,2", protocol, as_json=json)
