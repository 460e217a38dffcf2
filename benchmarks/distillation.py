"""Fine-tune pruned networks with and without a teacher, for the same steps, and keep the rows.

    python benchmarks/distillation.py --data DATA --dense FOLDER --out OUT
    python benchmarks/distillation.py --data DATA --dense FOLDER --out OUT --held-out
    python benchmarks/distillation.py --data DATA --dense FOLDER --out OUT --list

Every run is a folder in OUT; runs that are finished there are not repeated, and one that was killed
continues. `--list` prints the commands of those that are missing. With `--held-out`, losses are
compared on a fifth of the training images, which the student is not trained on; the test images are
not used. Rows of runs go to `results/distillation.csv`, gains to `results/distillation_gains.csv`.

FOLDER has the dense networks as `NAME.safetensors`, by the names of the configs in this folder.
"""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from distillation_gains import GAIN_COLUMNS, GAINS, gain_rows
from tables import RESULTS, read_rows, save_rows
from torch import nn

import flyweight as fw
from flyweight.config.reading import load_config
from flyweight.config.settings import Config
from flyweight.config.training import TrainConfig
from flyweight.distillation.recipe import clip_norm_of, short_recipe
from flyweight.distillation.strategies import STRATEGIES, Strategy, Term
from flyweight.distillation.teacher import Teacher
from flyweight.engine.fit import fit
from flyweight.engine.run import Loaders
from flyweight.files import write_text
from flyweight.measuring.environment import commit, hardware
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.inputs import Data, loaders_for, open_checkpoint, open_data, task_of
from flyweight.pipeline.inputs import val_batches as batches_of
from flyweight.pipeline.network_plans import plan_cut, trace_model
from flyweight.pipeline.networks import kind_of

HERE = Path(__file__).resolve().parent
RUNS = RESULTS / "distillation.csv"
KEY = ("case", "cut", "method", "seed", "steps", "clip_norm", "tested_on")
COLUMNS = (
    *KEY,
    *("metric_name", "metric", "metric_before", "dense_metric", "macs_share", "learning_rate"),
    *("images", "seconds", "hardware", "runtime", "commit", "date", "note"),
)

HEAVY_SHARE = 0.2
"""Of the dense network's multiply-adds, after the heavy cut of classifiers and segmenters."""


@dataclass(frozen=True)
class Case:
    """A trained network with what its students are compared by.

    Attributes:
        config: File in this folder; also the name of the dense checkpoint.
        metric: Of the comparison.
        steps: Of every training; half of them where losses are chosen.
        heavy: Ratios of the heavy cut; None removes the same share of all groups until a fifth of
            the multiply-adds is left.
        losses: Strategies to choose from.
    """

    config: str
    metric: str
    steps: int
    heavy: tuple[float, ...] | None
    losses: tuple[str, ...]


CASES = {
    "bccd": Case(
        "yolov3_mobilenet_v1_bccd",
        "map_50",
        600,
        (0.75,) * 12 + (0.875,) * 6,
        ("split", "l2", "crosskd", "pkd", "cwd", "mgd", "fgd", "split+pkd", "split+cwd"),
    ),
    "clothes": Case(
        "mobilenet_v2_clothing10",
        "top1",
        630,
        None,
        ("kl", "dkd", "pkd", "attention", "mimic", "kl+pkd", "dkd+pkd"),
    ),
    "camvid": Case(
        "deeplabv3p_camvid11",
        "miou",
        450,
        None,
        ("kl", "cwd", "pkd", "attention", "mgd", "kl+pkd", "kl+cwd"),
    ),
}
CUTS = ("heavy", "light", "repaired")
"""`light` is the cut of the config; `repaired` the heavy one and a repair, where it has none."""
METHODS = ("plain", "auto", "dense")
"""`plain`: the student without a teacher; `dense`: the dense network, trained for as many steps."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        case: Key of `CASES`.
        cut: One of `CUTS`; `none` of the dense network.
        method: One of `METHODS`, or strategies joined by "+".
        seed: Of training.
        steps: Of training.
        tested_on: `test`, or `held-out` training images.
    """

    case: str
    cut: str
    method: str
    seed: int
    steps: int
    tested_on: str

    def folder(self, out: Path) -> Path:
        """Return where the run works."""
        name = "-".join(str(getattr(self, field.name)) for field in fields(self))
        return out / re.sub(r"[+:@]", "_", name)


def main() -> int:
    """Train and write rows, or list what is missing; return the exit status."""
    options = parsed()
    for run in wanted(options):
        row = run.folder(options.out) / "row.json"
        if row.is_file():
            continue
        if options.list:
            print(command_of(run, options))
            continue
        write_text(row, json.dumps(measured(run, options), indent=1))
        print(row.read_text(), flush=True)
    if not options.list:
        collect(options)
    return 0


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="What a teacher adds to fine-tuning")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--dense", type=Path, required=True, help="folder of dense networks")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--cut", nargs="+", choices=CUTS, default=["heavy", "light"])
    parser.add_argument("--method", nargs="+", default=list(METHODS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="instead of those of the case")
    parser.add_argument("--held-out", action="store_true", help="choose losses, by one seed")
    parser.add_argument("--list", action="store_true", help="print the commands that are missing")
    parser.add_argument("--note", default="", help="what a reader must know")
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs that the options ask for."""
    cuts, seeds = (options.cut[:1], [0]) if options.held_out else (options.cut, options.seed)
    tested_on = "held-out" if options.held_out else "test"
    for name, cut, seed in product(options.case, cuts, seeds):
        methods = options.method
        if options.held_out and methods == list(METHODS):
            methods = ["plain", "auto", *CASES[name].losses]
        for method in methods:
            if method == "dense" and cut != options.cut[0]:
                continue
            shown = "none" if method == "dense" else cut
            steps = options.steps or CASES[name].steps // (2 if options.held_out else 1)
            yield Run(name, shown, method, seed, steps, tested_on)


def command_of(run: Run, options: argparse.Namespace) -> str:
    """Return the command that makes one run."""
    cut = ("--cut", run.cut) if run.cut in CUTS else ()
    words = (
        *("python", "benchmarks/distillation.py", "--data", str(options.data)),
        *("--dense", str(options.dense), "--out", str(options.out), "--case", run.case, *cut),
        *("--method", run.method, "--seed", str(run.seed), "--steps", str(run.steps)),
        *(("--held-out",) if run.tested_on == "held-out" else ()),
        *(("--note", options.note) if options.note else ()),
    )
    return shlex.join(words)


def measured(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network and return its row."""
    case = CASES[run.case]
    config = config_of(case, options.data, run.seed)
    data = open_data(config)
    if run.tested_on == "held-out":
        data = held_out(data)
    dense = open_checkpoint(options.dense / f"{case.config}.safetensors").model.eval()
    student = dense if run.method == "dense" else student_of(dense, run, config, options)
    left = macs(student, config) / macs(dense, config)

    def metric(model: nn.Module, name: str = "") -> float:
        """Evaluate a network; one with a name is the same in all runs and evaluated once."""
        known = options.out / "metrics" / f"{run.case}-{run.tested_on}-{name}.json"
        if name and known.is_file():
            return float(json.loads(known.read_text()))
        found = evaluate_model(model, config, data.val, progress=False)[case.metric]
        if name:
            write_text(known, json.dumps(found))
        return found

    before, dense_metric = metric(student, run.cut), metric(dense, "dense")
    began = time.monotonic()
    repaired = run.cut == "repaired" or (config.prune.repair and run.cut in CUTS)
    clip = clip_norm_of(kind_of(config), config.train)
    how = short_recipe(config.train, 1 - left, run.steps, repaired=repaired, clip_norm=clip)
    how = how.model_copy(update={"seed": run.seed, "patience": None, "evaluate_every": run.steps})
    train(student, dense, run, (config, how, data), options.out)
    seconds = time.monotonic() - began
    described = {"labels": data.val.labels, "preprocessing": config.preprocessing.model_dump()}
    fw.save(student.eval(), run.folder(options.out) / "student.safetensors", **described)
    return {
        **asdict(run),
        "metric_name": case.metric,
        "metric": round(metric(student), 5),
        "metric_before": round(before, 5),
        "dense_metric": round(dense_metric, 5),
        "macs_share": round(left, 4),
        "learning_rate": round(how.learning_rate, 6),
        "clip_norm": how.clip_norm,
        "images": len(data.val),
        "seconds": round(seconds),
        "hardware": where(),
        "runtime": f"torch {torch.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": time.strftime("%Y-%m-%d"),
        "note": options.note,
    }


def config_of(case: Case, data: Path, seed: int) -> Config:
    """Return a case's config with its data and seed."""
    file = str(HERE / f"{case.config}.yaml")
    _, config = load_config(file, [])
    root = f"data.root={data / config.data.root}"
    return load_config(file, [root, "train.num_workers=0", f"train.seed={seed}"])[1]


def held_out(data: Data) -> Data:
    """Return training images alone: four fifths to train on, one to test on."""
    records = data.train.records
    kept = tuple(record for place, record in enumerate(records) if place % 5)
    rest = tuple(record for place, record in enumerate(records) if place % 5 == 0)
    return replace(
        data, train=replace(data.train, records=kept), val=replace(data.train, records=rest)
    )


def student_of(
    dense: nn.Module, run: Run, config: Config, options: argparse.Namespace
) -> nn.Module:
    """Return the student of a run before training: made once for all runs of a case and cut."""
    file = options.out / "students" / f"{run.case}-{run.cut}.safetensors"
    if not file.is_file():
        fw.save(pruned(dense, run, config, open_data(config)), file)
    return fw.load(file)


def pruned(dense: nn.Module, run: Run, config: Config, data: Data) -> nn.Module:
    """Return the dense network with the cut of a run, repaired where the config repairs."""
    graph = trace_model(dense, config.preprocessing)
    heavy = CASES[run.case].heavy
    if run.cut != "light" and heavy is None:
        plan = down_to(HEAVY_SHARE, graph)
    elif run.cut != "light":
        section = config.prune.model_copy(update={"ratios": heavy, "criterion": "geometry_median"})
        plan = plan_cut(graph, section.cut)
    else:
        plan = plan_cut(graph, config.prune.cut)
    small = fw.prune(dense, plan)
    if config.prune.repair or run.cut == "repaired":
        size = config.eval_batch_size
        taken = islice(batches_of(config, data.train), config.prune.repair_images // size)
        fw.repair_(dense, small, plan, [batch.images for batch in taken])
    return small


def down_to(share: float, graph: fw.ModelGraph) -> fw.PruningPlan:
    """Return the cut of one ratio for all groups that leaves about a share of multiply-adds."""
    low, high, whole = 0.0, 1.0, graph.cost().macs
    for _ in range(12):
        middle = (low + high) / 2
        left = fw.plan(graph, middle, round_to=8).cost(graph).macs / whole
        low, high = (middle, high) if left > share else (low, middle)
    return fw.plan(graph, high, round_to=8)


def macs(model: nn.Module, config: Config) -> int:
    """Return the multiply-adds of one image."""
    return trace_model(model, config.preprocessing).cost().macs


def train(
    student: nn.Module,
    dense: nn.Module,
    run: Run,
    given: tuple[Config, TrainConfig, Data],
    out: Path,
) -> None:
    """Train a student in place; it continues where it was killed."""
    config, how, data = given
    task = task_of(student, data.val.labels, config)
    # Nothing is evaluated during training, and so nothing is chosen.
    loaders = Loaders(loaders_for(config, how, data).train)
    folder = run.folder(out)
    if run.method in ("plain", "dense"):
        fit(student, task, loaders, how, save_dir=folder, resume=True, progress=False)
        return
    options = {"resume": True, "progress": False}
    options["images"] = next(iter(batches_of(config, data.train))).images
    teacher, strategy = Teacher(dense), strategy_of(run.method)
    fw.distill(student, teacher, task, loaders, how, strategy=strategy, save_dir=folder, **options)


def strategy_of(name: str) -> Strategy | None:
    """Return the strategy of a method: of the table, with other weights, or the automatic one.

    Args:
        name: `auto`, or strategies joined by "+", such as `split+pkd@heads:30`: each with the taps
            that it compares, and a factor of its weights.
    """
    if name == "auto":
        return None
    return Strategy(name, tuple(term for one in name.split("+") for term in _terms(one)))


def _terms(name: str) -> tuple[Term, ...]:
    named, _, factor = name.partition(":")
    base, _, taps = named.partition("@")
    terms = STRATEGIES[base].scaled(float(factor or 1)).terms
    return tuple(replace(term, on=taps) for term in terms) if taps else terms


def where() -> str:
    """Return what trained: the processor, and a GPU where there is one."""
    gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    return ", ".join([hardware(), *gpus])


def collect(options: argparse.Namespace) -> None:
    """Put the rows of finished runs into the results, in place of earlier ones of the same run."""
    files = sorted(options.out.glob("*/row.json"))
    new = [json.loads(file.read_text()) for file in files]
    keys = {tuple(str(row[name]) for name in KEY) for row in new}
    old = read_rows(RUNS, COLUMNS)
    kept = [row for row in old if tuple(row[name] for name in KEY) not in keys]
    rows = [*kept, *({name: str(row[name]) for name in COLUMNS} for row in new)]
    rows.sort(key=lambda row: tuple(row[name] for name in KEY))
    save_rows(RUNS, rows, COLUMNS)
    save_rows(GAINS, gain_rows(rows), GAIN_COLUMNS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
