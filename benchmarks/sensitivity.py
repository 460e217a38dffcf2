"""One pass against evaluating every pruned network by itself: seconds, and whether they agree.

    python benchmarks/sensitivity.py --case yolo --data DATA --checkpoint DENSE.safetensors
    python benchmarks/sensitivity.py --case resnet50 --data DATA
    python benchmarks/sensitivity.py --case yolo --data DATA --checkpoint DENSE.safetensors \
        --pictures 72 --batch-size 4 --fast-against EXACT.json
    python benchmarks/sensitivity.py --case mobilenet_v2 --data DATA --weights WEIGHTS \
        --pictures 500 --curves EXACT.json

Both ways see the same batches, one after the other, batch by batch; seconds are CPU seconds, so
that other work on the machine counts for neither. The plain way decodes every batch again for every
cut, as an evaluation from its start does; cutting the network is not counted. One row per case and
mode goes to `results/sensitivity.csv`.

Fast mode is compared with the curves of a finished exact scan over the same images, which
`--curves` makes. What the plain way would take over all images is worked out from the images of
`--plain-pictures`.
"""

import argparse
import datetime
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import RESULTS, read_rows, save_rows
from torch import nn

import flyweight as fw
from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.data.images import prepare, read_image
from flyweight.data.loading import collate
from flyweight.data.samples.strata import stratified_order
from flyweight.graph import ModelGraph
from flyweight.graph.dispatch import evaluating
from flyweight.measuring.bootstrap import ratio_interval
from flyweight.measuring.environment import commit, hardware
from flyweight.pipeline.inputs import open_checkpoint, open_val, val_batches
from flyweight.pipeline.network_plans import trace_model
from flyweight.pruning import plan, prune
from flyweight.sensitivity import RATIOS, Evaluator, FastScanSettings, Sensitivity, read, scan
from flyweight.tasks.task import Metric

HERE = Path(__file__).resolve().parent
MAX_DROP = 0.05
COLUMNS = (
    *("case", "mode", "layers", "ratios", "pictures", "batch_size"),
    *("scan_seconds", "plain_seconds", "ratio", "ratio_low", "ratio_high", "largest_difference"),
    *("cuts", "spearman", "same_ratios"),
    *("hardware", "runtime", "commit", "date"),
)


@dataclass(frozen=True, eq=False)
class Case:
    """What is scanned.

    Attributes:
        name: Of the row.
        graph: Of the model.
        model: In evaluation mode.
        judge: Turns outputs into a metric.
        layers: Names of the layers to cut.
        batches: Each call decodes the batch again.
        batch_size: Images in each.
        local: Whether each layer alone chooses its channels.
    """

    name: str
    graph: ModelGraph
    model: nn.Module
    evaluator: Evaluator
    layers: Sequence[str]
    batches: Sequence[Callable[[], Any]]
    batch_size: int
    local: bool


def yolo(options: argparse.Namespace) -> Case:
    """The 18 layers of YOLOv3-MobileNetV1's head on BCCD, as the originals scanned them."""
    path = str(HERE / "yolov3_mobilenet_v1_bccd.yaml")
    root = load_config(path)[1].data.root
    _, config = load_config(path, ["train.num_workers=0", f"data.root={options.data / root}"])
    images = open_val(config)
    order = stratified_order(images) if options.fast_against else None
    samples = val_batches(config, images, order=order).dataset  # type: ignore[attr-defined]
    loaded = open_checkpoint(options.checkpoint)
    graph = trace_model(loaded.model, loaded.preprocessing)
    wanted = options.images // options.batch_size

    def decode(place: int) -> Any:
        share = range(place * options.batch_size, (place + 1) * options.batch_size)
        return collate([samples[index] for index in share])

    return Case(
        name="yolov3_mobilenet_v1 head, BCCD at 320",
        graph=graph,
        model=loaded.model.eval(),
        evaluator=loaded.task,
        layers=config.prune.params,
        batches=[lambda place=place: decode(place) for place in range(wanted)],
        batch_size=options.batch_size,
        local=True,
    )


def classifier(name: str, options: argparse.Namespace) -> Case:
    """All groups of a torchvision classifier on images of ImageNet."""
    import torchvision
    from safetensors.torch import load_file

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    root = options.data / "cls_imagenet_sample1000"
    lines = [line.split() for line in (root / "val_list.txt").read_text().splitlines()]
    random.Random(0).shuffle(lines)  # One image per class: the first ones are fish.
    preprocessing = Preprocessing(height=224, width=224, fit="crop")
    graph = trace_model(model, preprocessing)

    def decode(place: int) -> Any:
        share = lines[place * options.batch_size : (place + 1) * options.batch_size]
        images = [prepare(read_image(root / path), preprocessing) for path, _ in share]
        return torch.stack(images), torch.tensor([int(label) for _, label in share])

    return Case(
        name=f"{name}, all groups, ImageNet at 224",
        graph=graph,
        model=model,
        evaluator=Hits() if options.weights else Sure(),
        layers=list(graph.prunable()),
        batches=[
            lambda place=place: decode(place)
            for place in range(options.images // options.batch_size)
        ],
        batch_size=options.batch_size,
        local=False,
    )


class Sure:
    """The probability of the labelled class: untrained networks differ in it, unlike in top-1."""

    primary = "mean"

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run the network."""
        return model(batch[0])

    def decode(self, outputs: Any, batch: Any) -> Any:
        """Return the probabilities."""
        return outputs.softmax(1).gather(1, batch[1][:, None])[:, 0].double()

    def metric(self) -> "Mean":
        """Return a fresh metric."""
        return Mean()


class Hits(Sure):
    """Top-1: whether the labelled class is the likeliest."""

    def decode(self, outputs: Any, batch: Any) -> Any:
        """Return 1 or 0 for each image."""
        return (outputs.argmax(1) == batch[1]).double()


class Mean:
    """The mean of a number per image."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def update(self, predictions: Any, batch: Any) -> None:
        """Add a batch's."""
        self.found += predictions.tolist()

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        return {"mean": sum(self.found) / len(self.found)}

    def state(self) -> list[float]:
        """Return what was collected."""
        return self.found

    def merge(self, state: list[float]) -> None:
        """Add another's."""
        self.found += state


def save_curves(case: Case, path: Path) -> None:
    """Scan exactly, which can be cut off and called again, and save the curves."""
    scan(
        case.graph,
        case.model,
        Again(case.batches),
        case.evaluator,
        layers=case.layers,
        local=case.local,
        save_to=path,
        progress=True,
    )


def measured(case: Case) -> dict[str, object]:
    """Return the row of a case."""
    seconds: dict[str, list[list[float]]] = {"scan": [], "plain": []}
    metrics = {(layer, ratio): case.evaluator.metric() for layer in case.layers for ratio in RATIOS}

    def batches() -> Iterator[Any]:
        for batch in case.batches:
            begin = time.process_time()
            yield batch()
            # Here the scan asks for the next batch: it is done with this one.
            seconds["scan"].append([time.process_time() - begin])
            seconds["plain"].append([by_itself(case, batch, metrics)])
            _say(f"{case.name}: scan {seconds['scan'][-1]}, plain {seconds['plain'][-1]}")

    curves = scan(
        case.graph, case.model, batches(), case.evaluator, layers=case.layers, local=case.local
    )
    found = {key: metric.compute()[case.evaluator.primary] for key, metric in metrics.items()}
    gaps = [
        abs(point.value - found[layer, point.ratio])
        for layer, points in curves.curves.items()
        for point in points
    ]
    low, high = ratio_interval(seconds["plain"], seconds["scan"])
    ours, plain = (sum(sum(parts) for parts in seconds[way]) for way in ("scan", "plain"))
    return {
        **shared(case, "exact", ours, plain),
        "ratio_low": f"{low:.2f}",
        "ratio_high": f"{high:.2f}",
        "largest_difference": f"{max(gaps):.2g}",
    }


def shared(case: Case, mode: str, ours: float, plain: float) -> dict[str, object]:
    """Return what rows of both modes have: the case, and CPU seconds of the scan and without."""
    return {
        "case": case.name,
        "mode": mode,
        "layers": len(case.layers),
        "ratios": len(RATIOS),
        "pictures": len(case.batches) * case.batch_size,
        "batch_size": case.batch_size,
        "scan_seconds": f"{ours:.1f}",
        "plain_seconds": f"{plain:.1f}",
        "ratio": f"{plain / ours:.2f}",
    }


class Again:
    """The batches of a case, decoded again in every iteration."""

    def __init__(self, batches: Sequence[Callable[[], Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return (batch() for batch in self.batches)


def measured_fast(case: Case, exact: Sensitivity, plain_batches: int) -> dict[str, object]:
    """Return the row of a case in fast mode."""
    begin = time.process_time()
    fast = scan(
        case.graph,
        case.model,
        Again(case.batches),
        case.evaluator,
        layers=case.layers,
        local=case.local,
        fast=FastScanSettings(max_drop=MAX_DROP),
    )
    ours = time.process_time() - begin
    metrics = {(layer, ratio): case.evaluator.metric() for layer in case.layers for ratio in RATIOS}
    blocks = [[by_itself(case, batch, metrics)] for batch in case.batches[:plain_batches]]
    times = len(case.batches) / plain_batches
    plain = times * sum(map(sum, blocks))
    return {
        **shared(case, "fast", ours, plain),
        "cuts": sum(map(len, fast.curves.values())),
        **agreement(exact, fast),
    }


def agreement(exact: Sensitivity, fast: Sensitivity) -> dict[str, str]:
    """Return how well a fast scan's curves, and the ratios that follow, are the exact ones."""
    from scipy.stats import spearmanr

    pairs: list[tuple[float, float]] = []
    for layer in exact.curves:
        known = {0.0: 0.0, **fast.losses(layer)}
        for ratio, loss in exact.losses(layer).items():
            pairs.append((loss, float(np.interp(ratio, list(known), list(known.values())))))
    wanted, found = exact.ratios(MAX_DROP), fast.ratios(MAX_DROP)
    same = [abs(wanted.get(layer, 0) - found.get(layer, 0)) <= 0.1 + 1e-9 for layer in exact.curves]
    return {
        "spearman": f"{float(spearmanr(*zip(*pairs, strict=True))[0]):.4f}",
        "same_ratios": f"{sum(same) / len(same):.4f}",
    }


def by_itself(case: Case, batch: Callable[[], Any], metrics: Mapping[Any, Metric]) -> float:
    """Run every pruned network by itself on one batch; return the CPU seconds it took."""
    spent = 0.0
    for (layer, ratio), metric in metrics.items():
        cut = plan(case.graph, {layer: ratio}, local=case.local)
        small = prune(case.model, cut, verify=False).eval()
        begin = time.process_time()
        with evaluating(small):
            found = batch()
            outputs = case.evaluator.forward(small, found)
            metric.update(case.evaluator.decode(outputs, found), found)
        spent += time.process_time() - begin
    return spent


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure one case and write its row; return the exit status."""
    parser = argparse.ArgumentParser(description="One pass against many")
    parser.add_argument("--case", choices=("yolo", "resnet50", "mobilenet_v2"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--checkpoint", type=Path, help="of the detector")
    parser.add_argument("--weights", type=Path, help="of the classifier; without, random ones")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--curves", type=Path, help="scan exactly, save the curves and end")
    parser.add_argument("--fast-against", type=Path, help="curves of an exact scan")
    parser.add_argument("--plain-pictures", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    case = yolo(options) if options.case == "yolo" else classifier(options.case, options)
    if options.curves:
        save_curves(case, options.curves)
        return 0
    if options.fast_against:
        exact = read(options.fast_against)
        numbers = measured_fast(case, exact, options.plain_images // options.batch_size)
    else:
        numbers = measured(case)
    row = {
        **numbers,
        "hardware": f"{hardware()}, {options.threads} used",
        "runtime": f"torch {torch.__version__}, flyweight {fw.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path = RESULTS / "sensitivity.csv"
    others = [
        old
        for old in read_rows(path, COLUMNS)
        if (old["case"], old["mode"]) != (row["case"], row["mode"])
    ]
    save_rows(path, [*others, row], COLUMNS)
    _say(f"wrote {path}: {row['ratio']}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
