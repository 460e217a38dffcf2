"""Measure what repairing a network right after its cut brings back, step by step.

    python benchmarks/repair.py detection --data DATA --checkpoint DENSE.safetensors
    python benchmarks/repair.py classification --data DATA --ratio 0.3 --ratio 0.5
    python benchmarks/repair.py --table     # fill the table of docs/repair.md

The rows go to `results/repair.csv`, in place of earlier ones of the same benchmark, ratio and step.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tables import read_rows, save_rows
from torch import Tensor, nn

import flyweight as fw
from flyweight.config.cuts import RatioCut
from flyweight.config.reading import load_config
from flyweight.files import write_text
from flyweight.measuring.environment import commit, hardware
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import open_checkpoint, open_data, val_batches
from flyweight.pipeline.network_plans import plan_cut, trace_model
from flyweight.pruning import PruningPlan
from flyweight.pruning.repair.repair import RepairReport, RepairSettings, RepairStep, repair

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "repair.csv"
PAGE = HERE.parent / "docs" / "repair.md"
COLUMNS = (
    "benchmark",
    "ratio",
    "step",
    "metric_name",
    "metric",
    "brought_back",
    "output_error",
    "seconds",
    "pictures",
    "tested_on",
    "hardware",
    "runtime",
    "commit",
    "date",
    "note",
)
RUNS = {
    "least squares alone": RepairSettings(constants=None),
    "all steps": RepairSettings(norms=True),
    "norms alone": RepairSettings(norms=True, constants=None, reconstruct=False),
    "means alone": RepairSettings(constants="mean", reconstruct=False),
}
STEPS = ("dense", "cut", "+ constants", "+ norms", "+ least squares", *RUNS)
"""What a row can be, in the order of the table."""
_MARKERS = re.compile(r"(<!-- table: repair -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Case:
    """A dense network, its plan, and the images to repair it with and to evaluate it on."""

    name: str
    ratio: str
    dense: nn.Module
    plan: PruningPlan
    images: tuple[Tensor, ...]
    metric_name: str
    metric: Callable[[nn.Module], float]
    tested_on: int
    note: str


def main(arguments: list[str] | None = None) -> int:
    """Measure and write rows, or fill the table; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.table:
        page = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, filled(page, read_rows(RESULTS, COLUMNS)))
        return 0
    makers = {"detection": detection, "classification": classification}
    for case in makers[options.case](options):
        for rows in measured(case, options.only):
            write_rows(RESULTS, rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What a repair after the cut brings back")
    parser.add_argument("case", nargs="?", choices=("detection", "classification"))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--checkpoint", type=Path, help="dense checkpoint of the detection run")
    parser.add_argument("--ratio", type=float, action="append", help="of every group")
    parser.add_argument("--criterion", default="bn_scale", help="of the classification run")
    parser.add_argument("--pictures", type=int, default=500, help="to repair with, at most")
    parser.add_argument("--tested-on", type=int, default=500, help="images of ImageNet, at most")
    parser.add_argument("--only", choices=tuple(RUNS), action="append", help="not every run")
    parser.add_argument("--table", action="store_true", help="fill the table of docs/repair.md")
    return parser


def detection(options: argparse.Namespace) -> Iterator[Case]:
    """YOLOv3-MobileNetV1 on BCCD, cut as its benchmark says."""
    _, config = load_config(str(HERE / "yolov3_mobilenet_v1_bccd.yaml"), [])
    _, config = load_config(
        str(HERE / "yolov3_mobilenet_v1_bccd.yaml"),
        [f"data.root={options.data / config.data.root}", "train.num_workers=0"],
    )
    data = open_data(config)
    loaded = open_checkpoint(options.checkpoint)
    graph = trace_model(loaded.model, loaded.preprocessing)
    section = config.prune
    plan = plan_cut(graph, RatioCut(tuple(section.params), tuple(section.ratios)))
    batches = [batch.images for batch in val_batches(config, data.train)]

    def metric(model: nn.Module) -> float:
        return evaluate_model(model, config, data.val)["map_50"]

    yield Case(
        name="yolov3_mobilenet_v1 on BCCD",
        ratio="0.5 to 0.8 of the head",
        dense=loaded.model,
        plan=plan,
        images=tuple(torch.cat(batches)[: options.images].split(16)),
        metric_name="mAP, VOC area",
        metric=metric,
        tested_on=len(data.val),
        note="",
    )


def classification(options: argparse.Namespace) -> Iterator[Case]:
    """MobileNetV1 on ImageNet: even classes to repair with, odd ones to evaluate on."""
    import timm

    dense = timm.create_model("mobilenetv1_100", pad_type="same")
    weights = load_file(options.data / "weights" / "mobilenetv1_100_imagenet.safetensors")
    dense.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    dense.eval()
    root = options.data / "cls_imagenet_sample1000"
    lines = [line.split() for line in (root / "val_list.txt").read_text().splitlines()]
    images = _images(root, [path for path, _ in lines[0::2]][: options.images])
    tested = lines[1::2][: options.tested_on]
    unseen = _images(root, [path for path, _ in tested])
    labels = torch.tensor([int(label) for _, label in tested])

    @torch.inference_mode()
    def metric(model: nn.Module) -> float:
        model.eval()
        found = torch.cat([model(part).argmax(1) for part in unseen.split(50)])
        return float((found == labels).double().mean())

    graph = fw.trace(dense, (unseen[:1],))
    for ratio in options.ratio or [0.3, 0.5]:
        yield Case(
            name="mobilenetv1_100 on ImageNet",
            ratio=f"{ratio:g} of every group",
            dense=dense,
            plan=fw.plan(graph, ratio, options.criterion),
            images=tuple(images.split(32)),
            metric_name="top-1",
            metric=metric,
            tested_on=len(labels),
            note=f"{options.criterion}; training images of ImageNet, other classes than repaired",
        )


def _images(root: Path, paths: list[str]) -> Tensor:
    """Return images as the weights want them: short side 256, centre 224, in -1..1."""
    found = []
    for path in paths:
        with Image.open(root / path) as file:
            image = file.convert("RGB")
        scale = 256 / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - 224) // 2, (height - 224) // 2
        image = image.crop((left, top, left + 224, top + 224))
        found.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1)
    return torch.stack(found)


def measured(case: Case, only: list[str] | None) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of every run: those of all steps together, and of each alone."""
    small = fw.prune(case.dense, case.plan)
    facts = _facts(case)
    for name in only or RUNS:
        _, report = repair(
            case.dense,
            small,
            case.plan,
            case.images,
            RUNS[name],
            metric=case.metric,
            progress=name == "all steps",
        )
        _say(f"{case.name}, {case.ratio}, {name}: {report}")
        first = {**facts, "step": "dense", "metric": f"{report.dense_metric:.6f}"}
        rows = [_row(facts, report, step) for step in report.steps]
        if name != "all steps":
            rows[1:] = [row | {"step": name} for row in rows[1:]]
        yield [first, *rows]


def _row(facts: dict[str, object], report: RepairReport, step: RepairStep) -> dict[str, object]:
    back = report.brought_back(step)
    cut = step.name == "cut"
    return {
        **facts,
        "step": step.name if cut else f"+ {step.name}",
        "metric": f"{step.metric:.6f}",
        "brought_back": "" if back is None or cut else f"{back:.4f}",
        "output_error": f"{step.error:.4f}",
        "seconds": "" if cut else f"{step.seconds:.1f}",
    }


def _facts(case: Case) -> dict[str, object]:
    return {
        "benchmark": case.name,
        "ratio": case.ratio,
        "metric_name": case.metric_name,
        "pictures": sum(len(batch) for batch in case.images[:-1]),
        "tested_on": case.tested_on,
        "hardware": f"{hardware()}, {torch.get_num_threads()} used",
        "runtime": f"torch {torch.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "note": case.note,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Put `rows` in place of those with the same benchmark, ratio and step; keep the order."""
    by_key = {_key(row): row for row in [*read_rows(path, COLUMNS), *rows]}
    cases = list(dict.fromkeys(key[:2] for key in by_key))
    ordered = sorted(by_key, key=lambda key: (cases.index(key[:2]), STEPS.index(key[2])))
    save_rows(path, [by_key[key] for key in ordered], COLUMNS)


def _key(row: Mapping[str, object]) -> tuple[str, str, str]:
    return str(row["benchmark"]), str(row["ratio"]), str(row["step"])


def filled(page: str, rows: list[dict[str, str]]) -> str:
    """Return a page with the table updated."""
    return _MARKERS.sub(lambda match: match[1] + markdown(rows) + match[2], page)


def markdown(rows: list[dict[str, str]]) -> str:
    """Return one table per benchmark and ratio, with the information needed to interpret it."""
    parts: list[str] = []
    for key in dict.fromkeys((row["benchmark"], row["ratio"]) for row in rows):
        chosen = [row for row in rows if (row["benchmark"], row["ratio"]) == key]
        first = chosen[0]
        lines = [
            f"**{key[0]}**, {key[1]} removed",
            "",
            f"| step | {first['metric_name']} | brought back | output error | seconds |",
            "|---|---|---|---|---|",
        ]
        for row in chosen:
            back = f"{float(row['brought_back']):.0%}" if row["brought_back"] else ""
            metric = f"{float(row['metric']):.1%}"
            lines.append(
                f"| {row['step']} | {metric} | {back} | {row['output_error']} | {row['seconds']} |"
            )
        facts = [
            f"{first['pictures']} images without labels",
            f"{first['tested_on']} others to evaluate on",
            first["note"],
            first["hardware"],
            first["runtime"],
            f"commit {first['commit'][:12] or 'unknown'}",
            first["date"][:10],
        ]
        parts.append("\n".join([*lines, "", "; ".join(filter(None, facts)) + "."]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
