"""Precisions chosen by measured latency: what is chosen, and how fast it is beside float and int8.

    python benchmarks/quantization_precision.py --data DATA --weights TRAINED
    python benchmarks/quantization_precision.py --only unet --runtimes onnxruntime

Each row is one network on one runtime, one thread, batch 1: what `quantize --precision auto` would
choose, and the ratios of float over chosen and of float over all integers, measured in turns.
README.md describes the protocol; the rows go to `results/quantization_precision.csv`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from quantization_untrained import UNTRAINED
from tables import replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.preprocessing import Preprocessing
from flyweight.pipeline.precision_choice import Choice, Subject, choose
from flyweight.processors import clipping_note, load_average, processor_flags
from flyweight.progress import progress_of
from flyweight.quantization.rewriting import rewritten
from quantization import RUNTIMES, case_of, surroundings

RESULTS = Path(__file__).resolve().parent / "results" / "quantization_precision.csv"
KEY = ("network", "rewrite", "runtime", "hardware", "instructions")
COLUMNS = (
    *("network", "weights", "size", "rewrite", "runtime", "precision", "inference"),
    *("integer_layers", "layers", "predicted_ratio", "ratio", "low", "high"),
    *("int8_ratio", "int8_low", "int8_high", "metric_name", "metric_float", "metric"),
    *("load", "hardware", "instructions", "versions", "commit", "date", "note"),
)
TRAINED = "mobilenet_v2_clothing10"


def main(arguments: list[str] | None = None) -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="Precisions chosen by measured latency")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, help="folder of trained checkpoints")
    parser.add_argument("--only", nargs="+", choices=(TRAINED, *UNTRAINED), default=None)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each file")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    names = options.only or (TRAINED, *UNTRAINED) if options.data else options.only or UNTRAINED
    for name in names:
        for runtime in options.runtimes:
            for row in rows_of(name, runtime, options):
                replace_row(options.results, {**row, **surroundings()}, COLUMNS, KEY)
                print({key: row[key] for key in COLUMNS if key in row}, flush=True)
    return 0


def rows_of(name: str, runtime: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of a network on a runtime, each when it is measured."""
    if name == TRAINED:
        yield trained_row(runtime, options)
        return
    wanted = UNTRAINED[name]
    model = wanted.made()
    square = Preprocessing(height=wanted.size, width=wanted.size)
    images = torch.randn(4, 3, wanted.size, wanted.size)
    for rewrite in wanted.rewrites:
        choice = chosen(model, images, square, runtime, rewrite=rewrite, seconds=options.seconds)
        row = {"network": name, "weights": "random", "size": wanted.size, "rewrite": rewrite}
        yield {**row, **facts_of(choice, runtime)}


def trained_row(runtime: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of the trained network, with its metric before and after."""
    with tempfile.TemporaryDirectory() as folder:
        options.out = Path(folder)
        case = case_of(TRAINED, options)
        square = case.preprocessing
        choice = chosen(
            case.model, case.images, square, runtime, rewrite=False, seconds=options.seconds
        )
        metrics = {}
        for key, network in (("metric_float", case.model), ("metric", choice.model or case.model)):
            path = case.folder / f"{key}.onnx"
            case.export(network, path)
            metrics[key] = round(case.metric(path), 4) if case.metric else None
    row = {"network": TRAINED, "weights": "trained", "size": square.width, "rewrite": False}
    return {**row, **facts_of(choice, runtime), "metric_name": case.metric_name, **metrics}


def chosen(
    model: nn.Module,
    images: Tensor,
    preprocessing: Preprocessing,
    runtime: str,
    *,
    rewrite: bool,
    seconds: float,
) -> Choice:
    """Return what `quantize --precision auto` chooses."""
    start = rewritten(model) if rewrite else model
    bits = 8 if clipping_note(processor_flags(), "x86_64") is None else 7

    def quantized(floats: Mapping[str, str]) -> nn.Module:
        config = fw.QuantConfig(floats=floats, weight_bits=bits, runtime=runtime)
        return fw.quantize(start, images, config)

    subject = Subject(model, start, quantized, images, preprocessing, runtime, seconds)
    with tempfile.TemporaryDirectory() as folder:
        return choose(subject, None, Path(folder), progress_of(True))


def facts_of(choice: Choice, runtime: str) -> dict[str, Any]:
    """Return the columns of a choice."""
    latency = choice.latency
    row: dict[str, Any] = {
        "runtime": runtime,
        "precision": latency.precision,
        "inference": latency.inference,
        "integer_layers": len(choice.plan.integer),
        "layers": len(choice.plan.integer) + len(choice.plan.floats),
        "predicted_ratio": round(choice.plan.float_ms / choice.plan.predicted_ms, 3),
        "ratio": round(latency.ratio, 3),
        "low": round(latency.interval[0], 3),
        "high": round(latency.interval[1], 3),
        "load": load_average(),
        "note": latency.note,
    }
    # The last file in float32 has all layers on integers that can run on them.
    every = [one for one in choice.measured if one.inference == "float32"][-1]
    names = ("int8_ratio", "int8_low", "int8_high")
    for key, value in zip(names, (every.ratio, *every.interval), strict=True):
        row[key] = round(value, 3)
    return row


if __name__ == "__main__":
    sys.exit(main())
