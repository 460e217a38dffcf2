"""Measure what the correction of LayerNorms brings after an inexact cut.

    python benchmarks/repair_norms.py train vit --data DATA --weights OUT --epochs 24
    python benchmarks/repair_norms.py measure vit --data DATA --weights OUT
    python benchmarks/repair_norms.py table      # fill the table of docs/repair.md

The rows go to `results/repair_norms.csv`, in place of earlier ones of the same network and cut.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from repair_networks import NETWORKS, centred, load, logits_of, photos, save, train
from tables import read_rows, save_rows
from torch import Tensor, nn

import flyweight as fw
from flyweight.files import write_text
from flyweight.measuring.environment import commit
from flyweight.pipeline.inputs import open_checkpoint

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "repair_norms.csv"
PAGE = HERE.parent / "docs" / "repair.md"
COLUMNS = (
    "network",
    "cut",
    "step",
    "params",
    "top1",
    "agreement",
    "feature_error",
    "norms_before",
    "norms_after",
    "images",
    "tested_on",
    "commit",
)
CUTS = {
    "exact 0.2": ("exact", 0.2),
    "exact 0.4": ("exact", 0.4),
    "inexact 0.2": ("inexact", 0.2),
    "inexact 0.4": ("inexact", 0.4),
}
_MARKERS = re.compile(r"(<!-- table: repair_norms -->\n).*?(<!-- end -->)", re.DOTALL)
_TEACHER = Path("weights") / "trained" / "mobilenet_v2_clothing10.safetensors"
_RUNS = {
    "norms": fw.RepairSettings(reconstruct=False),
    "layers": fw.RepairSettings(channel_norms=False),
    "norms and layers": fw.RepairSettings(),
}


def main(arguments: list[str] | None = None) -> int:
    """Train a network, measure it, or fill the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("train", "measure", "table"))
    parser.add_argument("network", nargs="?", choices=tuple(NETWORKS))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, help="file of the trained weights")
    parser.add_argument("--start", type=Path, help="weights to continue training from")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=320, help="to repair with")
    parser.add_argument("--cut", choices=tuple(CUTS), action="append", help="not every cut")
    options = parser.parse_args(arguments)
    if options.job == "table":
        page = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, filled(page, read_rows(RESULTS, COLUMNS)))
    elif options.job == "train":
        train_one(options)
    else:
        dense = load(options.network, options.weights)
        for rows in measured(options.network, dense, options.data / "cls_clothing10", options):
            write_rows(RESULTS, rows)
    return 0


def train_one(options: argparse.Namespace) -> None:
    """Train a network and write its weights."""
    teacher = open_checkpoint(options.data / _TEACHER).model.float().eval()
    network = train(
        options.network,
        options.data / "cls_clothing10",
        lambda images: logits_of(teacher, images, 160),
        epochs=options.epochs,
        say=_say,
        start=options.start,
    )
    save(network, options.weights)


def measured(
    name: str, dense: nn.Module, root: Path, options: argparse.Namespace
) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of every cut: as it is, and after each way of repair."""
    images, labels = photos(root, "test")
    tested = Tested(centred(images), labels, dense)
    chosen, _ = photos(root, "train")
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    batches = list(centred(chosen[order[: options.images + 32]]).split(32))
    facts = {
        "network": name,
        "images": options.images,
        "tested_on": len(labels),
        "commit": commit(HERE.parent) or "",
    }
    graph = fw.trace(dense, (batches[0][:1],))
    yield [facts | {"cut": "none", "step": "dense", "params": 1.0} | tested.row(dense)]
    for kind, ratio in (CUTS[name] for name in options.cut or CUTS):
        plan = fw.plan(graph, ratio, inexact=kind == "inexact")
        for note in plan.notes:
            _say(f"note: {note}")
        small = fw.prune(dense, plan)
        share = plan.cost(graph).params / graph.cost().params
        facts |= {"cut": f"{kind} {ratio:g}", "params": round(share, 4)}
        rows = [facts | {"step": "cut"} | tested.row(small)]
        for step, settings in _RUNS.items():
            if kind == "exact" and step != "layers":
                continue
            better, report = fw.repair(dense, small, plan, batches, settings)
            _say(f"{name}, {kind} {ratio:g}, {step}: {report}")
            fits = [fit for one in report.steps for fit in one.norms]
            last = {fit.name: fit.after for fit in fits}
            first = {fit.name: fit.before for fit in reversed(fits)}
            means = {
                column: f"{sum(values.values()) / len(values):.4f}"
                for column, values in (("norms_before", first), ("norms_after", last))
                if values
            }
            rows.append(facts | {"step": f"+ {step}"} | tested.row(better) | means)
        yield rows


class Tested:
    """Images to evaluate on, and what the dense network says of them."""

    def __init__(self, images: Tensor, labels: Tensor, dense: nn.Module) -> None:
        self._images, self._labels = images, labels
        self._logits, self._features = self._outputs(dense)

    def _outputs(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        model.eval()
        with torch.inference_mode():
            parts = [model(part) for part in self._images.split(62)]
        logits = torch.cat(parts)
        return logits, logits - logits.mean(1, keepdim=True)

    def row(self, model: nn.Module) -> dict[str, object]:
        """Return accuracy, agreement with the dense network, and the error of the logits."""
        logits, features = self._outputs(model)
        found = logits.argmax(1)
        gap = (features - self._features).norm() / self._features.norm()
        return {
            "top1": f"{float((found == self._labels).double().mean()):.4f}",
            "agreement": f"{float((found == self._logits.argmax(1)).double().mean()):.4f}",
            "feature_error": f"{float(gap):.4f}",
        }


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Put `rows` in place of those of the same network, cut and step."""
    by_key = {_key(row): row for row in [*read_rows(path, COLUMNS), *rows]}
    save_rows(path, [{**dict.fromkeys(COLUMNS, ""), **row} for row in by_key.values()], COLUMNS)


def _key(row: dict[str, object] | dict[str, str]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("network", "cut", "step"))


def filled(page: str, rows: list[dict[str, str]]) -> str:
    """Return a page with the table updated."""
    return _MARKERS.sub(lambda match: match[1] + markdown(rows) + match[2], page)


def markdown(rows: list[dict[str, str]]) -> str:
    """Return one table per network."""
    parts = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        lines = [
            f"**{name}**",
            "",
            "| cut | step | parameters | top-1 | agreement | output error | norms | photos |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in own:
            norms = [
                f"{float(row[key]):.3f}" for key in ("norms_before", "norms_after") if row[key]
            ]
            lines.append(
                f"| {row['cut']} | {row['step']} | {float(row['params']):.0%} "
                f"| {float(row['top1']):.1%} | {float(row['agreement']):.1%} "
                f"| {float(row['feature_error']):.3f} | {' to '.join(norms)} "
                f"| {'' if row['step'] in ('dense', 'cut') else row['images']} |"
            )
        facts = (
            "Repaired with training photos of cls_clothing10, without labels; "
            f"{own[0]['tested_on']} test photos to evaluate on; commit {own[0]['commit'][:12]}."
        )
        parts.append("\n".join([*lines, "", facts]) + "\n")
    return "\n".join(parts)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
