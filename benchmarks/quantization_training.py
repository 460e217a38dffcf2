"""Train a quantized network for some steps, in every way, and keep what it then scores.

    python benchmarks/quantization_training.py classification --data DATA --checkpoint DENSE

The float network is trained for the same steps, because some of a gain is that of training on. One
row per way in `results/quantization_training.csv`, in place of an earlier one.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from quantization_accuracy import CONFIGS, HERE, Case, case_of, surroundings
from tables import RESULTS, replace_row
from torch import nn

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.config.training import TrainConfig
from flyweight.engine.fit import fit
from flyweight.graph.containers import tensors_in
from flyweight.pipeline.inputs import loaders_for, open_data, task_of
from flyweight.quantization.learned_steps import settled, trainable
from flyweight.quantization.network import plan_of
from flyweight.quantization.quantization_plan import LearnedSteps

TARGET = RESULTS / "quantization_training.csv"
KEY = ("benchmark", "method", "steps", "hold_after", "learning_rate")
COLUMNS = (
    *KEY,
    *("metric_name", "metric", "metric_before", "same_share", "dense_metric", "seed"),
    "tested_on",
    *("hardware", "runtime", "commit", "date"),
)


def networks(case: Case, steps: int) -> Iterator[tuple[str, int, nn.Module]]:
    """Yield name, first step with held integers, and network of every way to train."""
    quantized = fw.quantize(case.model, case.images)
    yield "float", 0, case.model
    for method in ("fixed", "lsq", "pact"):
        yield method, 0, trainable(quantized, LearnedSteps(method))
    held = steps * 3 // 4
    yield "lsq", held, trainable(quantized, LearnedSteps("lsq", held))


@torch.no_grad()
def _classes(case: Case, model: nn.Module) -> torch.Tensor:
    """Return the class of every test image, or pixel; of a detector, the best anchor's."""
    was = model.training
    model.eval()
    made = [next(tensors_in(model(batch))).argmax(1) for batch in case.test]
    model.train(was)
    return torch.cat(made)


def main() -> int:
    """Measure and write rows; return the exit status."""
    parser = argparse.ArgumentParser(description="What training a quantized network gains")
    parser.add_argument("case", choices=CONFIGS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--method", action="append", help="not every one: float, lsq, lsq-held")
    options = parser.parse_args()
    case = case_of(options)
    file = str(HERE / CONFIGS[options.case][0])
    _, config = load_config(file, [])
    root = f"data.root={options.data / config.data.root}"
    _, config = load_config(file, [root, "train.num_workers=0"])
    data, dense = open_data(config), case.metric(case.model)
    train = TrainConfig(
        steps=options.steps,
        batch_size=16,
        learning_rate=options.learning_rate,
        weight_decay=1e-4,
        schedule="cosine",
        num_workers=0,
        devices=1,
    )
    for method, held, model in networks(case, options.steps):
        if options.method and f"{method}{'-held' if held else ''}" not in options.method:
            continue
        classes = _classes(case, model)
        before, task = case.metric(model), task_of(model, data.val.labels, config)
        with tempfile.TemporaryDirectory() as folder:
            loaders = loaders_for(config, train, data)
            fit(model, task, loaders, train, save_dir=Path(folder), progress=False)
        ended = model if plan_of(model) is None else settled(model)
        row = {
            "benchmark": case.name,
            "method": method,
            "steps": options.steps,
            "hold_after": held,
            "learning_rate": options.learning_rate,
            "metric_name": case.metric_name,
            "metric": round(case.metric(ended), 4),
            "metric_before": round(before, 4),
            "same_share": round(float((_classes(case, ended) == classes).float().mean()), 4),
            "dense_metric": round(dense, 4),
            "seed": train.seed,
            "tested_on": case.tested_on,
            **surroundings(),
        }
        print(row, flush=True)
        replace_row(TARGET, row, COLUMNS, KEY)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
