"""Quantized networks of flyweight and of other tools: metric, latency, census, size.

    python benchmarks/quantization.py --data DATA --weights TRAINED --out OUT
    python benchmarks/quantization.py ... --peer nncf=/path/to/environment/bin/python
    python benchmarks/quantization.py ... --no-timing        # on a busy machine

Every tool quantizes the same float file with raw outputs on the same 16 training images. Metrics
are those of the files in ONNX Runtime on the whole test split. Latencies of all files of a network
are measured in one interleaved run per runtime, one thread, batch 1. A tool that fails has a row
with its message. README.md describes the protocol; the rows go to `results/quantization.csv`.
"""

import argparse
import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.measuring import BenchConfig
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.engine.evaluate import evaluate
from flyweight.exporting.exported_model import ExportedModel
from flyweight.measuring.census import take_census
from flyweight.measuring.comparison import compare
from flyweight.measuring.environment import commit, hardware
from flyweight.measuring.measure import Measurement, measure
from flyweight.pipeline.inputs import Loaded, open_checkpoint, open_data, task_of, val_batches
from flyweight.pipeline.quantization_steps import CalibrationImages
from flyweight.pipeline.stages.export import export_model
from flyweight.processors import processor_flags

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "quantization.csv"
NETWORKS = {
    "mobilenet_v2_clothing10": ("mobilenet_v2_clothing10.yaml", "top1"),
    "yolov3_mobilenet_v1_bccd": ("yolov3_mobilenet_v1_bccd.yaml", "map_50"),
    "deeplabv3p_camvid11": ("deeplabv3p_camvid11.yaml", "miou"),
}
"""Trained checkpoint to its config beside this file, and the metric."""
KEY = ("network", "tool", "instructions")
COLUMNS = (
    *("network", "tool", "metric_name", "metric_float", "metric", "integer_layers", "layers"),
    *("float_islands", "file_bytes_float", "file_bytes"),
    *("onnxruntime_ratio", "onnxruntime_low", "onnxruntime_high"),
    *("openvino_ratio", "openvino_low", "openvino_high", "noisy"),
    *("images", "hardware", "instructions", "versions", "commit", "date", "note"),
)
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
RUNTIMES = ("onnxruntime", "openvino")


class FileNetwork(nn.Module):
    """An exported file with raw outputs as a module that tasks understand."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = ExportedModel(path, threads=torch.get_num_threads())

    def forward(self, images: Tensor) -> Any:
        """Return the outputs of every image, in one tensor or a tuple."""
        rows = [tuple(self.file.run(image[None]).values()) for image in images]
        made = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return made[0] if len(made) == 1 else made


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network in a folder of its own.

    Attributes:
        name: Of the row.
        config: Data and metric.
        loaded: The float checkpoint.
        images: For calibration.
        folder: Of all files.
        metric_name: Of the metric.
        metric: Evaluates a file.
        tested_on: Images in the test split.
    """

    name: str
    config: Config
    loaded: Loaded
    images: Tensor
    folder: Path
    metric_name: str
    metric: Callable[[Path], float]
    tested_on: int


def main(arguments: list[str] | None = None) -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="Quantized networks of several tools")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="folder of trained checkpoints")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--peer", action="append", default=[], metavar="TOOL=PYTHON")
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each file and runtime")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    tools = {"quantize_static": sys.executable, **dict(item.split("=") for item in options.peer)}
    for name in options.only:
        case = case_of(name, options)
        files, failed = quantized(case, tools)
        rows = list(measured(case, files))
        if not options.no_timing:
            add_latencies(rows, files, options.seconds)
        rows += [{"network": name, "tool": tool, "note": why} for tool, why in failed.items()]
        for row in rows:
            replace_row(options.results, {**row, **surroundings()}, COLUMNS, KEY)
            print({key: row[key] for key in COLUMNS if row.get(key) not in (None, "")}, flush=True)
    return 0


def case_of(name: str, options: argparse.Namespace) -> Case:
    """Return a network by its name."""
    file, metric = NETWORKS[name]
    _, config = load_config(str(HERE / file), [])
    root = f"data.root={options.data / config.data.root}"
    _, config = load_config(str(HERE / file), [root, "train.num_workers=0"])
    data = open_data(config)
    loaded = open_checkpoint(options.weights / f"{name}.safetensors", config)
    task = task_of(loaded.model, data.labels, config)
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)

    def metric_of(path: Path) -> float:
        return evaluate(FileNetwork(path), task, val_batches(config, data.val))[metric]

    images = torch.cat(list(CalibrationImages(config, data, config.quantize.images)))
    return Case(name, config, loaded, images, folder, metric, metric_of, len(data.val))


def quantized(case: Case, tools: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of all tools, the float one first, and the messages of those that fail."""
    files = {"float": case.folder / "float.onnx"}
    export_model(case.loaded, files["float"], end="raw", name="float")
    small = fw.quantize(case.loaded.model, case.images)
    files["flyweight"] = case.folder / "flyweight.onnx"
    loaded = Loaded(small, case.loaded.task, case.loaded.preprocessing, case.loaded.checkpoint)
    export_model(loaded, files["flyweight"], end="raw", name="flyweight")
    images = case.folder / "images.npy"
    np.save(images, case.images.numpy())
    failed = {}
    for tool, python in tools.items():
        target = case.folder / f"{tool}.onnx"
        command = [python, str(HERE / "quantization_peers.py"), tool, str(files["float"])]
        done = subprocess.run(
            [*command, str(images), str(target)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed[tool] = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        else:
            files[tool] = with_description(target, files["float"])
    return files, failed


def with_description(path: Path, source: Path) -> Path:
    """Give a file the description of another, which tools leave out."""
    import onnx

    model, described = onnx.load(path), onnx.load(source)
    del model.metadata_props[:]
    model.metadata_props.extend(described.metadata_props)
    onnx.save(model, path)
    return path


def measured(case: Case, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield a row for every quantized file: metric, census, size."""
    first = case.metric(files["float"])
    for tool, path in files.items():
        if tool == "float":
            continue
        census = take_census(path)
        yield {
            "network": case.name,
            "tool": tool,
            "metric_name": case.metric_name,
            "metric_float": round(first, 4),
            "metric": round(case.metric(path), 4),
            "integer_layers": census.integer_count,
            "layers": len(census.layers),
            "float_islands": census.islands,
            "file_bytes_float": files["float"].stat().st_size,
            "file_bytes": path.stat().st_size,
            "images": case.tested_on,
        }


def add_latencies(rows: list[dict[str, Any]], files: Mapping[str, Path], seconds: float) -> None:
    """Put the ratios of float over integer latency into the rows, for both runtimes."""
    config = BenchConfig(seconds=seconds)
    for runtime in RUNTIMES:
        found = measure(list(files.values()), threads=(1,), runtime=runtime, config=config)
        by_tool: dict[str, Measurement] = dict(zip(files, found, strict=True))
        for row in rows:
            ratio = compare(by_tool["float"], by_tool[row["tool"]])
            low, high = ratio.interval
            row[f"{runtime}_ratio"] = round(ratio.speedup, 3)
            row[f"{runtime}_low"], row[f"{runtime}_high"] = round(low, 3), round(high, 3)
            row["noisy"] = row.get("noisy") or any(one.is_noisy for one in found)


def surroundings() -> dict[str, str]:
    """Return what a row says of where it was measured."""
    import onnxruntime
    import openvino

    flags = processor_flags() or frozenset()
    return {
        "hardware": hardware(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "versions": f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
