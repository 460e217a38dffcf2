"""Measure what quantization costs a trained network, for every way to choose ranges.

    python benchmarks/quantization_accuracy.py classification --data DATA --checkpoint DENSE
    python benchmarks/quantization_accuracy.py detection --data DATA --checkpoint DENSE
    python benchmarks/quantization_accuracy.py segmentation --data DATA --checkpoint DENSE
    python benchmarks/quantization_accuracy.py nuclei --data DATA --checkpoint DENSE

The quantized network runs in PyTorch and computes what runtimes compute up to ties in rounding.
Images for calibration are the first ones of the training split in the order of a seed. The rows go
to `results/quantization_accuracy.csv`, in place of earlier ones of the same settings.
"""

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from tables import replace_row
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.graph.containers import tensors_in
from flyweight.graph.dispatch import evaluating
from flyweight.measuring.environment import commit, hardware
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import open_checkpoint, open_data, val_batches
from flyweight.quantization.adaptive_rounding import AdaptiveRounding, round_adaptively
from flyweight.quantization.block_reconstruction import reconstruct_blocks
from flyweight.quantization.layer_losses import layer_losses, sensitive_layers
from flyweight.quantization.network import plan_of

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "quantization_accuracy.csv"
CONFIGS = {
    "classification": ("mobilenet_v2_clothing10.yaml", "top1"),
    "detection": ("yolov3_mobilenet_v1_bccd.yaml", "map_50"),
    "segmentation": ("deeplabv3p_camvid11.yaml", "miou"),
    "nuclei": ("unet_nuclei.yaml", "miou"),
}
KEY = (
    *("benchmark", "ranges", "percentile", "images", "fix_dead_channels", "correct_bias"),
    *("equalize", "rounding", "weight_bits", "exact"),
)
COLUMNS = (
    *KEY,
    *("metric_name", "metric", "dense_metric", "output_snr_db", "same_share", "constant_channels"),
    *("tested_on", "hardware", "runtime", "commit", "date"),
)
ROUNDINGS = ("nearest", "layers", "blocks", "sensitive layers", "sensitive blocks")
"""How weights are rounded: by `fw.quantize`, by adaptive rounding of layers or blocks, and by that
of those that have the most of the loss."""
RANGES: tuple[Mapping[str, Any], ...] = (
    {"ranges": "percentile", "percentile": 99.99},
    {"ranges": "percentile", "percentile": 99.9},
    {"ranges": "mse"},
    {"ranges": "minmax"},
)
OPTIONS: tuple[Mapping[str, Any], ...] = (
    {},
    {"fix_dead_channels": False},
    {"correct_bias": False},
    {"equalize": True},
)


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network with what calibrates and evaluates it.

    Attributes:
        name: Of the row.
        model: The float network.
        images: For calibration, of the training split.
        test: Batches to compare outputs on.
        metric_name: Of the metric.
        metric: Evaluates a network on the whole test split.
        tested_on: Images in that.
    """

    name: str
    model: nn.Module
    images: Tensor
    test: tuple[Tensor, ...]
    metric_name: str
    metric: Callable[[nn.Module], float]
    tested_on: int


def main(arguments: list[str] | None = None) -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="What quantization costs")
    parser.add_argument("case", choices=CONFIGS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--rounding", choices=ROUNDINGS, default="nearest", help="that alone")
    parser.add_argument("--percentile", type=float, help="not every one")
    parser.add_argument("--ranges", action="append", help="not every way")
    parser.add_argument("--exact", action="store_true", help="that alone, on exact grids")
    options = parser.parse_args(arguments)
    case = case_of(options)
    with torch.no_grad():
        dense = [case.model(batch) for batch in case.test]
    first = case.metric(case.model)
    print(f"{case.name}: {first:.4f} in float", flush=True)
    for config in _configs(options):
        row = measured(case, config, dense, options.rounding)
        row |= {"images": len(case.images), "dense_metric": round(first, 4)}
        replace_row(RESULTS, {**row, **surroundings()}, COLUMNS, KEY)
        print(row, flush=True)
    return 0


def _configs(options: argparse.Namespace) -> Iterator[fw.QuantConfig]:
    plain = fw.QuantConfig(weight_bits=options.weight_bits, exact=options.exact)
    for ranges in RANGES:
        if options.ranges and ranges["ranges"] not in options.ranges:
            continue
        if options.percentile not in (None, ranges.get("percentile")):
            continue
        alone = options.rounding != "nearest" or options.exact
        for option in OPTIONS[:1] if alone else OPTIONS:
            yield replace(plain, **ranges, **option)


def case_of(options: argparse.Namespace) -> Case:
    """Return a case by its name."""
    file, metric = CONFIGS[options.case]
    _, config = load_config(str(HERE / file), [])
    root = f"data.root={options.data / config.data.root}"
    _, config = load_config(str(HERE / file), [root, "train.num_workers=0"])
    data = open_data(config)
    model = open_checkpoint(options.checkpoint).model.eval()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    chosen = replace(
        data.train, records=tuple(data.train.records[place] for place in order[: options.images])
    )
    images = torch.cat([batch.images for batch in val_batches(config, chosen)])
    return Case(
        name=f"{config.model} on {Path(config.data.root).name}",
        model=model,
        images=images,
        test=tuple(batch.images for batch in val_batches(config, data.val)),
        metric_name=metric,
        metric=lambda one: evaluate_model(one, config, data.val, progress=False)[metric],
        tested_on=len(data.val),
    )


def measured(case: Case, config: fw.QuantConfig, dense: list[Any], rounding: str) -> dict[str, Any]:
    """Return the row of one setting."""
    quantized = fw.quantize(case.model, case.images, config)
    began = time.monotonic()
    if rounding != "nearest":
        quantized = _rounded(case, quantized, rounding)
    print(f"rounding took {time.monotonic() - began:.0f} s", flush=True)
    signal = noise = same = count = 0.0
    with evaluating(quantized):
        for batch, wanted in zip(case.test, dense, strict=True):
            for one, other in zip(tensors_in(wanted), tensors_in(quantized(batch)), strict=True):
                signal += float(one.double().square().sum())
                noise += float((one - other).double().square().sum())
                count += one[:, 0].numel()
                same += float((one.argmax(1) == other.argmax(1)).sum())
    plan = plan_of(quantized)
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        **{name: settings[name] for name in KEY if name in settings},
        "benchmark": case.name,
        "rounding": rounding,
        "metric_name": case.metric_name,
        "metric": round(case.metric(quantized), 4),
        "output_snr_db": round(float(10 * torch.log10(torch.tensor(signal / noise))), 2),
        "same_share": round(same / count, 4) if case.metric_name != "map_50" else "",
        "constant_channels": sum(map(len, plan.constant.values())),
        "tested_on": case.tested_on,
    }


def _rounded(case: Case, quantized: nn.Module, rounding: str) -> nn.Module:
    """Return a network whose weights are rounded to keep what layers or blocks compute."""
    layers: tuple[str, ...] = ()
    if rounding.startswith("sensitive"):
        losses = layer_losses(case.model, quantized, case.images[:4])
        layers = sensitive_layers(losses)
        print(f"{len(layers)} of {len(losses)} layers are sensitive", flush=True)
    settings = AdaptiveRounding(layers)
    if rounding.endswith("blocks"):
        return reconstruct_blocks(case.model, quantized, case.images, settings)
    return round_adaptively(case.model, quantized, case.images, settings)


def surroundings() -> dict[str, str]:
    """Return what a row says of where it was measured."""
    return {
        "hardware": hardware(),
        "runtime": f"torch {torch.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
