"""Quantized networks of flyweight and of other tools: metric, latency, census, size.

    python benchmarks/quantization.py --data DATA --weights TRAINED --out OUT
    python benchmarks/quantization.py ... --peer nncf=/path/to/environment/bin/python
    python benchmarks/quantization.py ... --no-timing        # on a busy machine

Every tool quantizes the same float network with raw outputs on the same 16 training images. Metrics
are those of the files in ONNX Runtime on the whole test split. Latencies of all files of a network
are measured in one interleaved run per runtime, one thread, batch 1. A tool that fails has a row
with its message. README.md describes the protocol; the rows go to `results/quantization.csv`.
"""

import argparse
import datetime
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantization_untrained import UNTRAINED
from tables import replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.measuring import BenchConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.engine.evaluate import evaluate
from flyweight.exporting.exported_model import ExportedModel
from flyweight.exporting.onnx import OnnxConfig
from flyweight.measuring.census import take_census
from flyweight.measuring.comparison import compare
from flyweight.measuring.environment import commit, hardware, usable_cores
from flyweight.measuring.measure import Measurement, measure
from flyweight.pipeline.inputs import Loaded, open_checkpoint, open_data, task_of, val_batches
from flyweight.pipeline.quantization_steps import CalibrationImages
from flyweight.pipeline.stages.export import export_model
from flyweight.processors import load_average, processor_flags
from flyweight.quantization.network import plan_of
from flyweight.runtimes.runtime_table import runtime_by_name

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "quantization.csv"


@dataclass(frozen=True)
class Trained:
    """A checkpoint in the folder of weights, by the name of its row.

    Attributes:
        config: File beside this one, for data and metric.
        metric: Name of the metric.
        dense: Checkpoint of the network that it was pruned from; empty where it was not.
    """

    config: str
    metric: str
    dense: str = ""


NETWORKS: Mapping[str, Trained] = {
    "mobilenet_v2_clothing10": Trained("mobilenet_v2_clothing10.yaml", "top1"),
    "yolov3_mobilenet_v1_bccd": Trained("yolov3_mobilenet_v1_bccd.yaml", "map_50"),
    "yolov3_mobilenet_v1_bccd_r578": Trained(
        "yolov3_mobilenet_v1_bccd.yaml", "map_50", dense="yolov3_mobilenet_v1_bccd"
    ),
    "deeplabv3p_camvid11": Trained("deeplabv3p_camvid11.yaml", "miou"),
    "unet_nuclei": Trained("unet_nuclei.yaml", "miou"),
}
KEY = ("network", "tool", "instructions")
COLUMNS = (
    *("network", "tool", "metric_name", "metric_float", "metric", "output_snr_db", "same_share"),
    *("integer_layers", "layers", "float_islands", "file_bytes_float", "file_bytes"),
    *("onnxruntime_ratio", "onnxruntime_low", "onnxruntime_high", "onnxruntime_dense_ratio"),
    *("openvino_ratio", "openvino_low", "openvino_high", "openvino_dense_ratio", "noisy"),
    *("images", "hardware", "instructions", "versions", "commit", "date", "note"),
)
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
RUNTIMES = ("onnxruntime", "openvino")
FLOAT_FILES = ("float", "dense")
CLASSES = ("top1", "miou")
"""Metrics of networks whose first output has scores of classes along axis 1."""
FOR_OPENVINO = "flyweight for OpenVINO"
"""Tool of the row of `QuantConfig(runtime="openvino")`, where the file is another one."""
HALF = "OpenVINO bfloat16"
"""Tool of the row of the float file in that precision."""


class FileNetwork(nn.Module):
    """An exported file with raw outputs as a module that tasks understand."""

    def __init__(self, path: Path, runtime: str) -> None:
        super().__init__()
        self.file = ExportedModel(path, threads=torch.get_num_threads(), runtime=runtime)

    def forward(self, images: Tensor) -> Any:
        """Return the outputs of every image, in one tensor or a tuple."""
        rows = [tuple(self.file.run(image[None]).values()) for image in images]
        made = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return made[0] if len(made) == 1 else made


@dataclass(frozen=True, eq=False)
class Case:
    """A network in a folder of its own.

    Attributes:
        name: Of the row.
        model: The float network.
        preprocessing: Gives the size of its input.
        export: Writes a network as an ONNX file with raw outputs.
        images: For calibration.
        test: Batches on which outputs are compared.
        folder: Of all files.
        metric_name: Of the metric; empty for random weights.
        metric: Evaluates a file in a runtime, by default ONNX Runtime.
        dense: The network that it was pruned from, if any.
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    export: Callable[[nn.Module, Path], object]
    images: Tensor
    test: tuple[Tensor, ...]
    folder: Path
    metric_name: str = ""
    metric: Callable[..., float] | None = None
    dense: nn.Module | None = None


def main(arguments: list[str] | None = None) -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="Quantized networks of several tools")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="folder of trained checkpoints")
    parser.add_argument("--out", type=Path, required=True)
    every = [*NETWORKS, *UNTRAINED]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--peer", action="append", default=[], metavar="TOOL=PYTHON")
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each file and runtime")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    tools = {"quantize_static": sys.executable, **dict(item.split("=") for item in options.peer)}
    for name in options.only:
        case = case_of(name, options) if name in NETWORKS else untrained_case(name, options)
        files, failed = quantized(case, tools)
        rows = list(measured(case, files))
        if not options.no_timing:
            rows += add_latencies(rows, files, options.seconds)
        rows += [{"tool": tool, "note": why} for tool, why in failed.items()]
        for row in rows:
            row |= {"network": name, **surroundings()}
            replace_row(options.results, row, COLUMNS, KEY)
            print({key: row[key] for key in COLUMNS if row.get(key) not in (None, "")}, flush=True)
    return 0


def case_of(name: str, options: argparse.Namespace) -> Case:
    """Return a trained network by its name."""
    wanted = NETWORKS[name]
    _, config = load_config(str(HERE / wanted.config), [])
    root = f"data.root={options.data / config.data.root}"
    _, config = load_config(str(HERE / wanted.config), [root, "train.num_workers=0"])
    data = open_data(config)
    loaded = open_checkpoint(options.weights / f"{name}.safetensors", config)
    task = task_of(loaded.model, data.labels, config)

    def metric_of(path: Path, runtime: str = RUNTIMES[0]) -> float:
        file = FileNetwork(path, runtime)
        return evaluate(file, task, val_batches(config, data.val))[wanted.metric]

    def export(network: nn.Module, path: Path) -> None:
        as_loaded = Loaded(network, loaded.task, loaded.preprocessing, loaded.checkpoint)
        export_model(as_loaded, path, end="raw", name=path.stem)

    dense = options.weights / f"{wanted.dense}.safetensors"
    return Case(
        name=name,
        model=loaded.model,
        preprocessing=loaded.preprocessing,
        export=export,
        images=torch.cat(list(CalibrationImages(config, data, config.quantize.images))),
        test=tuple(batch.images for batch in val_batches(config, data.val)),
        folder=folder_of(name, options),
        metric_name=wanted.metric,
        metric=metric_of,
        dense=open_checkpoint(dense, config).model if wanted.dense else None,
    )


def untrained_case(name: str, options: argparse.Namespace) -> Case:
    """Return a network with random weights, whose images are random, too."""
    wanted = UNTRAINED[name]
    model, side = wanted.made(), wanted.size
    images = torch.randn(24, 3, side, side)
    return Case(
        name=name,
        model=model,
        preprocessing=Preprocessing(height=side, width=side),
        export=partial(_export_random, images=images[:1]),
        images=images[:16],
        test=(images[16:],),
        folder=folder_of(name, options),
    )


def _export_random(network: nn.Module, path: Path, *, images: Tensor) -> None:
    # Random weights amplify a difference of one level to any size.
    fw.export(network, path, example=(images,), config=OnnxConfig(tolerance=1e6))


def folder_of(name: str, options: argparse.Namespace) -> Path:
    """Return the folder of a network, which exists."""
    folder: Path = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def quantized(case: Case, tools: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of all tools, the float one first, and the messages of those that fail."""
    files = {"float": case.folder / "float.onnx"}
    case.export(case.model, files["float"])
    if case.dense is not None:
        files["dense"] = case.folder / "dense.onnx"
        case.export(case.dense, files["dense"])
    files |= own_files(case)
    images = case.folder / "images.npy"
    np.save(images, case.images.numpy())
    program = torch.export.export(case.model, (case.images[:1],))
    torch.export.save(program, files["float"].with_suffix(".pt2"))
    failed = {}
    for tool, python in tools.items():
        target = case.folder / f"{tool}.onnx"
        target.unlink(missing_ok=True)
        command = [python, str(HERE / "quantization_peers.py"), tool, str(files["float"])]
        done = subprocess.run(
            [*command, str(images), str(target)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed[tool] = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
            continue
        with_description(target, files["float"])
        if why := _refusal(target, case.images[:1]):
            failed[tool] = why
        else:
            files[tool] = target
    return files, failed


def own_files(case: Case) -> dict[str, Path]:
    """Return our file for both runtimes and, where it is another one, that for OpenVINO."""
    both = fw.quantize(case.model, case.images)
    files = {"flyweight": case.folder / "flyweight.onnx"}
    case.export(both, files["flyweight"])
    alone = fw.quantize(case.model, case.images, fw.QuantConfig(runtime="openvino"))
    if plan_of(alone) != plan_of(both):
        files[FOR_OPENVINO] = case.folder / "flyweight_openvino.onnx"
        case.export(alone, files[FOR_OPENVINO])
    return files


def _refusal(path: Path, image: Tensor) -> str:
    """Return why a runtime cannot run a file, or nothing."""
    for runtime in RUNTIMES:
        try:
            ExportedModel(path, threads=1, runtime=runtime).run(image)
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises
            return f"{runtime}: {str(error).splitlines()[0]}"[-200:]
    return ""


def with_description(path: Path, source: Path) -> None:
    """Give a file the description of another, which tools leave out."""
    import onnx

    model, described = onnx.load(path), onnx.load(source)
    del model.metadata_props[:]
    model.metadata_props.extend(described.metadata_props)
    onnx.save(model, path)


def measured(case: Case, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield a row for every quantized file: metric, distance, census, size."""
    first = None if case.metric is None else round(case.metric(files["float"]), 4)
    wanted = outputs_of(files["float"], case.test)
    for tool, path in files.items():
        if tool in FLOAT_FILES:
            continue
        runtime = "openvino" if tool == FOR_OPENVINO else RUNTIMES[0]
        census = take_census(path, runtime=runtime)
        yield {
            "tool": tool,
            "metric_name": case.metric_name,
            "metric_float": "" if first is None else first,
            "metric": round(case.metric(path, runtime), 4) if case.metric else "",
            **(distance(case, wanted, outputs_of(path, case.test, runtime)) if case.metric else {}),
            "integer_layers": census.integer_count,
            "layers": len(census.layers),
            "float_islands": census.islands,
            "file_bytes_float": files["float"].stat().st_size,
            "file_bytes": path.stat().st_size,
            "images": sum(len(batch) for batch in case.test),
        }


def outputs_of(
    path: Path, batches: Iterable[Tensor], runtime: str = RUNTIMES[0]
) -> list[list[Tensor]]:
    """Return the outputs of a file for every image."""
    file = ExportedModel(path, threads=1, runtime=runtime)
    return [list(file.run(image[None]).values()) for batch in batches for image in batch]


def distance(case: Case, wanted: list[list[Tensor]], found: list[list[Tensor]]) -> dict[str, float]:
    """Return how near outputs are to the float ones: signal to noise, and equal classes.

    Args:
        case: The network.
        wanted: Outputs of the float file, for every image.
        found: Of the quantized one.
    """
    signal = noise = 0.0
    same: list[float] = []
    for one, other in zip(wanted, found, strict=True):
        for sound, quantized_output in zip(one, other, strict=True):
            signal += float(sound.double().square().sum())
            noise += float((sound - quantized_output).double().square().sum())
        same.append(float((one[0].argmax(1) == other[0].argmax(1)).double().mean()))
    row = {"output_snr_db": round(10 * math.log10(signal / noise), 2)}
    if case.metric_name in CLASSES:
        row["same_share"] = round(sum(same) / len(same), 4)
    return row


def add_latencies(
    rows: list[dict[str, Any]], files: Mapping[str, Path], seconds: float
) -> list[dict[str, Any]]:
    """Put the ratios of float over integer latency into the rows, for both runtimes.

    Returns:
        A row for the float file in OpenVINO's bfloat16, where the processor has it.
    """
    config = BenchConfig(seconds=seconds)
    halved: list[dict[str, Any]] = []
    for runtime in RUNTIMES:
        wait_for_quiet()
        timed = {**files, HALF: files["float"]} if _has_half(runtime) else dict(files)
        found = measure(
            list(timed.values()),
            threads=(1,),
            runtime=runtime,
            config=config,
            precisions=["bfloat16" if name == HALF else "float32" for name in timed],
        )
        by_tool: dict[str, Measurement] = dict(zip(timed, found, strict=True))
        halved = [{"tool": HALF}] if HALF in timed else halved
        for row in (*rows, *halved) if HALF in timed else rows:
            ratio = compare(by_tool["float"], by_tool[row["tool"]])
            low, high = ratio.interval
            row[f"{runtime}_ratio"] = round(ratio.speedup, 3)
            row[f"{runtime}_low"], row[f"{runtime}_high"] = round(low, 3), round(high, 3)
            row["noisy"] = row.get("noisy") or any(one.is_noisy for one in found)
            if "dense" in files:
                whole = compare(by_tool["dense"], by_tool[row["tool"]])
                row[f"{runtime}_dense_ratio"] = round(whole.speedup, 3)
    return halved


def wait_for_quiet(limit_s: float = 120.0) -> None:
    """Wait until the evaluations before have left the load average, or the time is over."""
    end = time.monotonic() + limit_s
    while (load_average() or 0.0) >= len(usable_cores()) / 2 and time.monotonic() < end:
        time.sleep(1)


def _has_half(runtime: str) -> bool:
    return "bfloat16" in runtime_by_name(runtime).precisions()


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
