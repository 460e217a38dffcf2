"""Compare exact grids with free ones: equal bits, metric and time, in both runtimes.

    python benchmarks/quantization_exact.py classification --data DATA --checkpoint DENSE
    python benchmarks/quantization_exact.py detection --data DATA --checkpoint DENSE
    python benchmarks/quantization_exact.py digits

Bits are compared on real images of the test split. Both files run by turns on one thread, and the
ratio of their times is a median over rounds with a bootstrap interval of 95 %. One row per network
and runtime in `results/quantization_exact.csv`, in place of an earlier one.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantization_accuracy import CONFIGS, Case, case_of, surroundings
from tables import RESULTS, replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.config.shipped_networks import SHIPPED
from flyweight.exporting.onnx import OnnxConfig
from flyweight.graph.containers import tensors_in
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import open_checkpoint, open_data, val_batches
from flyweight.processors import processor_flags
from flyweight.quantization.network import plan_of
from flyweight.runtimes.protocol import OpenModel, OpenSettings
from flyweight.runtimes.runtime_table import RUNTIMES, installed_version, runtime_by_name

TARGET = RESULTS / "quantization_exact.csv"
KEY = ("benchmark", "runtime", "precision", "instructions")
COLUMNS = (
    *KEY,
    *("images", "equal_images", "bit_equal", "unrounded"),
    *("metric_name", "metric_dense", "metric_free", "metric_exact", "tested_on"),
    *("time_ratio", "time_low", "time_high", "exact_ms", "load", "hardware", "versions"),
    *("commit", "date"),
)
INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx2")
DIGITS = "digit_detector"
ROUNDS, RUNS = 15, 10


def main() -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="What exact grids give and cost")
    parser.add_argument("case", choices=[*CONFIGS, "digits"])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--checkpoint", type=Path, help="of the dense network")
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument("--compared", type=int, default=40, help="to compare bits on")
    parser.add_argument("--runtime", choices=RUNTIMES, help="that alone")
    parser.add_argument("--tested", type=int, default=0, help="digits to test on; 0 is all")
    options = parser.parse_args()
    case = _digits(options) if options.case == "digits" else case_of(options)
    free = fw.quantize(case.model, case.images)
    scores = {"dense": case.metric(case.model), "free": case.metric(free)}
    for runtime in [options.runtime] if options.runtime else RUNTIMES:
        config = fw.QuantConfig(exact=True, runtime=runtime)
        exact = fw.quantize(case.model, case.images, config)
        score = {**scores, "exact": case.metric(exact)}
        for row in rows_of(case, (free, exact), runtime, options.compared):
            found = {f"metric_{name}": round(value, 4) for name, value in score.items()}
            row |= found | {"metric_name": case.metric_name, "tested_on": case.tested_on}
            replace_row(TARGET, {**row, **surroundings(), "runtime": runtime}, COLUMNS, KEY)
            print(row, flush=True)
    return 0


def _digits(options: argparse.Namespace) -> Case:
    """Return the shipped quarter-width YOLOv3."""
    count = [f"data.val_count={options.tested}"] if options.tested else []
    _, config = load_config(DIGITS, [*SHIPPED[DIGITS], "train.num_workers=0", *count])
    presets = Path(fw.__file__).parent / "config" / "presets"
    model = open_checkpoint(presets / f"{DIGITS}.safetensors").model.eval()
    data = open_data(config)
    taken = [next(iter(val_batches(config, part))).images for part in (data.train, data.val)]
    return Case(
        name=f"quarter-width {config.model} on digits",
        model=model,
        images=taken[0][: options.images],
        test=tuple(one.images for one in val_batches(config, data.val)),
        metric_name="map_50",
        metric=lambda one: evaluate_model(one, config, data.val, progress=False)["map_50"],
        tested_on=len(data.val),
    )


def rows_of(case: Case, pair: tuple[nn.Module, nn.Module], runtime: str, count: int) -> Any:
    """Yield the row of each precision of a runtime, but for metrics."""
    images = torch.cat(case.test)[:count]
    free, exact = pair
    flags = processor_flags() or ()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.onnx" for name in ("free", "exact")]
        for model, path in zip((free, exact), paths, strict=True):
            config = OnnxConfig(runtime=runtime)
            fw.export(model, path, example=(images[:1],), config=config)
        for precision in runtime_by_name(runtime).precisions():
            if precision == "float16":
                continue
            settings = OpenSettings(1, precision)
            opened = [runtime_by_name(runtime).open(path, settings) for path in paths]
            images_equal, values = _equal(exact, opened[1], images)
            yield {
                "benchmark": case.name,
                "precision": precision,
                "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
                "images": len(images),
                "equal_images": images_equal,
                "bit_equal": round(values, 6),
                "unrounded": len(plan_of(exact).unrounded),
                "versions": f"{installed_version(runtime)} torch {torch.__version__}",
                **_times(opened, images[:1]),
            }


def _equal(model: nn.Module, opened: OpenModel, images: Tensor) -> tuple[int, float]:
    """Return how many images have equal outputs, and the share of equal values."""
    images_equal = equal = count = 0
    with torch.no_grad():
        for image in images:
            made = [one.numpy() for one in tensors_in(model(image[None]))]
            found = opened.run({opened.inputs[0].name: image[None].numpy()})
            same = [a == b for a, b in zip(made, found.values(), strict=True)]
            images_equal += all(part.all() for part in same)
            equal += sum(int(part.sum()) for part in same)
            count += sum(part.size for part in same)
    return images_equal, equal / count


def _times(opened: list[OpenModel], image: Tensor) -> dict[str, Any]:
    """Return the ratio of the times of the second file and the first, run by turns."""
    given = image.numpy()
    calls = [one.inference({one.inputs[0].name: given}) for one in opened]
    for call in calls:
        _fastest(call)
    pairs = [tuple(map(_fastest, calls)) for _ in range(ROUNDS)]
    ratios = np.array([exact / free for free, exact in pairs])
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    load = Path("/proc/loadavg")
    return {
        "time_ratio": round(float(np.median(ratios)), 3),
        "time_low": round(float(low), 3),
        "time_high": round(float(high), 3),
        "exact_ms": round(statistics.median(pair[1] for pair in pairs), 3),
        "load": load.read_text(encoding="utf-8").split()[0] if load.exists() else "",
    }


def _fastest(call: Callable[[], object]) -> float:
    """Return the shortest of some runs, in milliseconds."""
    return min(map(partial(_elapsed, call), range(RUNS)))


def _elapsed(call: Callable[[], object], _: int) -> float:
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
