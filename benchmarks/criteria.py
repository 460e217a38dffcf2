"""Compare criteria: accuracy after a cut, without any training; keep the rows.

    python benchmarks/criteria.py           # measure, write results/criteria.csv, fill the table
    python benchmarks/criteria.py --table   # fill the tables of docs/criteria.md from the rows
    python benchmarks/criteria.py --check   # compare them with the rows; status 1 if they differ

Small networks are trained on scikit-learn's handwritten digits, one per seed. Every criterion cuts
the same networks: once the same share of every group, and once by ranking all groups until as many
multiply-adds are left. Accuracy is measured right after the cut, and again when the statistics of
the normalisations have been measured again on training images.
"""

import argparse
import datetime
import itertools
import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tables import read_rows, save_rows
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flyweight.files import write_text
from flyweight.graph import ModelGraph, trace
from flyweight.measuring.environment import commit, hardware
from flyweight.planning.ranking import plan_globally
from flyweight.pruning import Criterion, PruningPlan, plan, prune, taylor
from flyweight.pruning.repair.norms import reestimate_norms

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "criteria.csv"
PAGE = HERE.parent / "docs" / "criteria.md"
COLUMNS = (
    "benchmark",
    "criterion",
    "ratio",
    "choice",
    "seed",
    "accuracy",
    "reestimated_accuracy",
    "dense_accuracy",
    "macs",
    "dense_macs",
    "params",
    "dense_params",
    "pictures",
    "train_seconds",
    "hardware",
    "runtime",
    "commit",
    "date",
    "note",
)
CRITERIA = ("taylor", "l1_norm", "l2_norm", "geometry_median", "bn_scale", "random", "first")
CHOICES = ("uniform", "none", "lamp", "mean", "max")
"""The same share of every group, or ranked: how scores were made comparable."""
RATIOS = (0.25, 0.5)
EPOCHS, BATCH, TAYLOR_BATCHES, STATISTICS_BATCHES = 15, 64, 20, 5
_MARKERS = re.compile(r"(<!-- table: criteria_(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Pair = tuple[Tensor, Tensor]


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_layer(width, inner), *_layer(inner, width)[:2])

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        return torch.relu(x + self.body(x))


class Network(nn.Module):
    """Residual blocks, then a depthwise convolution, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_layer(1, 32),
            Residual(32, 32),
            Residual(32, 32),
            *_layer(32, 64, stride=2),
            *_layer(64, 64, groups=64),
            *_layer(64, 64, kernel=1),
            Residual(64, 64),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of ten digits for images `(n, 1, 8, 8)`."""
        return self.head(self.features(x).mean((2, 3)))


def _layer(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    shape = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": False}
    return [nn.Conv2d(inputs, outputs, kernel, **shape), nn.BatchNorm2d(outputs), nn.ReLU()]


def digits(seed: int) -> tuple[Pair, Pair]:
    """Return three quarters of the digits for training and the others for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    cut = len(order) * 3 // 4
    classes = torch.from_numpy(labels).long()
    train, test = order[:cut], order[cut:]
    return (images[train], classes[train]), (images[test], classes[test])


def batches(pair: Pair) -> Iterator[Pair]:
    """Yield whole batches in order."""
    images, labels = pair
    for start in range(0, len(images) - BATCH + 1, BATCH):
        yield images[start : start + BATCH], labels[start : start + BATCH]


def trained(data: Pair, seed: int) -> nn.Module:
    """Return a network trained on `data`, the same for the same seed."""
    torch.manual_seed(seed)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    steps = EPOCHS * (len(data[0]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(data[0]))
        for images, labels in batches((data[0][order], data[1][order])):
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, data: Pair) -> float:
    """Return the share of images whose digit is found."""
    with torch.no_grad():
        return float((model.eval()(data[0]).argmax(1) == data[1]).float().mean())


@dataclass(frozen=True)
class Trial:
    """One way to cut a network."""

    criterion: str
    ratio: float
    choice: str
    plan: PruningPlan


def trials(graph: ModelGraph, model: nn.Module, data: Pair) -> Iterator[Trial]:
    """Yield the cuts to compare."""
    some = list(batches(data))[:TAYLOR_BATCHES]
    from_data = taylor(model, some, lambda twin, pair: cross_entropy(twin(pair[0]), pair[1]))
    for ratio, name in itertools.product(RATIOS, CRITERIA):
        criterion: str | Criterion = from_data if name == "taylor" else name
        uniform = plan(graph, ratio, criterion)
        yield Trial(name, ratio, "uniform", uniform)
        share = uniform.cost(graph).macs / graph.cost().macs
        for choice in CHOICES[1:]:
            if name != "first":  # its scores are an order, not amounts
                ranked = plan_globally(graph, criterion, macs=share, normalise=choice)
                yield Trial(name, ratio, choice, ranked)


def measure(seeds: int) -> Iterator[dict[str, object]]:
    """Train, cut and test once per seed; yield the rows."""
    facts = {
        "benchmark": "criteria",
        "hardware": hardware(),
        "runtime": f"torch {torch.__version__}",
        "commit": commit(HERE.parent) or "",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "note": "no training after the cut",
    }
    for seed in range(seeds):
        train, test = digits(seed)
        began = time.monotonic()
        model = trained(train, seed)
        seconds = time.monotonic() - began
        graph = trace(model, (test[0][:1],))
        dense = accuracy(model, test)
        say(f"seed {seed}: accuracy {dense:.4f} after {seconds:.0f} s of training")
        same = facts | {"seed": seed, "train_seconds": f"{seconds:.0f}"}
        same |= {"dense_accuracy": f"{dense:.6f}", "pictures": len(test[0])}
        for trial in trials(graph, model, train):
            yield same | _row(trial, graph, model, train, test)


def _row(
    trial: Trial, graph: ModelGraph, model: nn.Module, train: Pair, test: Pair
) -> dict[str, object]:
    small = prune(model, trial.plan)
    raw = accuracy(small, test)
    reestimate_norms(small, [images for images, _ in batches(train)][:STATISTICS_BATCHES])
    before, after = graph.cost(), trial.plan.cost(graph)
    return {
        "criterion": trial.criterion,
        "ratio": trial.ratio,
        "choice": trial.choice,
        "accuracy": f"{raw:.6f}",
        "reestimated_accuracy": f"{accuracy(small, test):.6f}",
        "macs": after.macs,
        "dense_macs": before.macs,
        "params": after.params,
        "dense_params": before.params,
    }


def say(line: str) -> None:
    """Write progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def markdown(rows: list[dict[str, str]], table: str) -> str:
    """Return one of the page's tables with the information needed to interpret it, or nothing.

    Args:
        rows: Of the results file.
        table: `cut` compares criteria at all ratios; `ranking` the ways to rank groups.
    """
    if not rows:
        return ""
    columns = _COLUMNS_OF[table]
    lines = [["criterion", *(title for title, _, _ in columns)]]
    lines.append(["---", *("---:" for _ in columns)])
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        cells = [_cell(rows, {"criterion": criterion, **where}, key) for _, where, key in columns]
        if any(cells):
            lines.append([f"`{criterion}`", *cells])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{_facts(rows)}\n"


_AGAIN = "reestimated_accuracy"
_COLUMNS_OF: dict[str, list[tuple[str, dict[str, str], str]]] = {
    "cut": [
        (f"{ratio} of every group{then}", {"ratio": ratio, "choice": "uniform"}, key)
        for ratio in map(str, RATIOS)
        for then, key in (("", "accuracy"), (", statistics re-estimated", _AGAIN))
    ],
    "ranking": [
        (name, {"ratio": "0.5", "choice": choice}, _AGAIN)
        for choice in CHOICES
        for name in ["0.5 of every group" if choice == "uniform" else f"`{choice}`"]
    ],
}


def _cell(rows: list[dict[str, str]], where: dict[str, str], key: str) -> str:
    found = [100 * float(row[key]) for row in rows if where.items() <= row.items()]
    return spread(found) if found else ""


def spread(values: list[float]) -> str:
    """Return the mean and the standard deviation between seeds."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _facts(rows: list[dict[str, str]]) -> str:
    first = rows[0]
    seeds = {row["seed"]: 100 * float(row["dense_accuracy"]) for row in rows}
    left = {row["ratio"]: int(row["macs"]) / int(row["dense_macs"]) for row in reversed(rows)}
    shares = " and ".join(f"{100 * share:.0f} %" for _, share in sorted(left.items()))
    facts = [
        f"Accuracy in % (dense: {spread(list(seeds.values()))})",
        f"mean ± standard deviation of {len(seeds)} networks",
        f"ratios {' and '.join(sorted(left))} leave {shares} of the multiply-adds",
        f"{first['pictures']} images",
        first["hardware"],
        first["runtime"],
        f"commit {first['commit'][:12] or 'unknown'}",
        first["date"][:10],
        "[rows](../benchmarks/results/criteria.csv)",
        *dict.fromkeys(row["note"] for row in rows if row["note"]),
    ]
    return f"{'; '.join(facts)}."


def filled(text: str, rows: list[dict[str, str]]) -> str:
    """Return a page with its tables updated."""
    return _MARKERS.sub(lambda match: match[1] + markdown(rows, match[2]) + match[3], text)


def main(arguments: list[str] | None = None) -> int:
    """Measure, or only fill or check the tables; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare criteria right after a cut")
    parser.add_argument("--seeds", type=int, default=5, help="networks to train")
    parser.add_argument("--table", action="store_true", help="fill the table only")
    parser.add_argument("--check", action="store_true", help="compare the table only")
    options = parser.parse_args(arguments)
    if not options.table and not options.check:
        save_rows(RESULTS, list(measure(options.seeds)), COLUMNS)
        print(f"wrote {RESULTS}")
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before, read_rows(RESULTS, COLUMNS))
    if options.check:
        if before != after:
            print("docs/criteria.md differs from its rows. Run: benchmarks/criteria.py --table")
        return int(before != after)
    write_text(PAGE, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
