"""The rows of the coverage benchmark: their columns, and what they say together.

`markdown` makes the table of the README; benchmarks/tables.py puts it there.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

COLUMNS = (
    "suite",
    "model",
    "tool",
    "status",
    "reason",
    "groups",
    "prunable",
    "mixed",
    "frozen",
    "params_before",
    "params_after_exact",
    "params_after_inexact",
    "max_error",
    "second_error",
    "training_error",
    "checked",
    "trace_seconds",
    "plan_seconds",
    "prune_seconds",
    "prune_inexact_seconds",
    "verify_seconds",
    "total_seconds",
    "precision",
    "exports",
    "commit",
    "hardware",
    "date",
)
STATUSES = (
    *("ok", "nothing removed", "refused", "inexact", "wrong", "crashed", "timeout", "not-built"),
)
LINES = {
    "torchvision, classification": ("torchvision-classification",),
    "torchvision, segmentation, detectors, others": (
        *("torchvision-segmentation", "torchvision-detection", "torchvision-other"),
    ),
    "timm, one or more per family": ("timm",),
    "transformers": ("transformers",),
    "segmentation_models_pytorch": ("segmentation_models",),
    "monai": ("monai",),
    "pytorchcv": ("pytorchcv",),
    "flyweight's zoo, and idioms written by hand": ("zoo", "idioms"),
}
"""Lines of the table, and the suites of each."""
_HEADER = """\
| **flyweight** / Torch-Pruning | networks | exact, trains | parameters kept | CPU seconds, most |
|---|--:|--:|--:|--:|
"""
_NOTHING = "no cut:"
"""How the reason of a refusal begins where everything was frozen."""

Row = Mapping[str, str]


def seconds_of(row: Row) -> float:
    """Return the CPU seconds of the tool on one network: trace, plan and prune."""
    return sum(float(row.get(f"{step}_seconds") or 0) for step in ("trace", "plan", "prune"))


def kept_of(row: Row) -> float:
    """Return the share of the parameters that stay."""
    return int(row["params_after_inexact"]) / int(row["params_before"])


def verdict_of(row: Row) -> str:
    """Return the status; a network of which nothing was removed is not one that was refused."""
    nothing = row["status"] == "refused" and row.get("reason", "").startswith(_NOTHING)
    return "nothing removed" if nothing else row["status"]


def line_of(row: Row) -> str:
    """Return one line on one network."""
    kept = f"{kept_of(row):.2f}" if row.get("params_after_inexact") else "  - "
    head = f"{verdict_of(row):9} {row['model']:38} {row['tool']:13}"
    return f"{head} kept {kept} {seconds_of(row):6.2f} s  {row['reason']}".rstrip()


def summary(rows: Sequence[Row]) -> str:
    """Return what the rows say together: per suite and tool, then everything that is not ok."""
    lines = []
    for suite, tool in dict.fromkeys((row["suite"], row["tool"]) for row in rows):
        mine = [row for row in rows if (row["suite"], row["tool"]) == (suite, tool)]
        told = _told(mine, STATUSES)
        lines.append(f"{suite}, {tool}: {len(mine)} models; {told}")
        fine = [row for row in mine if row["status"] == "ok"]
        if fine:
            taken = sorted(seconds_of(row) for row in fine)
            late = taken[min(int(0.95 * len(taken)), len(taken) - 1)]
            kept = statistics.median(kept_of(row) for row in fine)
            lines.append(f"  kept, median {kept:.3f}; p95 {late:.2f} s, most {taken[-1]:.2f} s")
    failed = [row for row in rows if row["status"] != "ok"]
    return "\n".join([*lines, *("  " + line_of(row) for row in failed)])


def markdown(rows: Sequence[Row], source: str) -> str:
    """Return the table of the README with what one must know to judge it, or nothing.

    Args:
        rows: Of both tools.
        source: Path of their file, from the README.
    """
    if not rows:
        return ""
    lines = [_line(title, suites, rows) for title, suites in LINES.items()]
    ours = [row for row in rows if row["tool"] == "flyweight"]
    theirs = [row for row in rows if row["tool"] == "torch-pruning"]
    latest = max(ours or rows, key=lambda row: row["date"])
    processors = sorted({row["hardware"].split(",")[0] for row in rows})
    commits = sorted({row["commit"][:12] or "unknown" for row in ours or rows})
    facts = [
        "Half of every group, no hand help; median of the parameters kept",
        f"flyweight on {len(ours)}: {_told(ours, STATUSES)}",
        *_only_mixed(ours),
        *([f"Torch-Pruning on {len(theirs)}: {_told(theirs, STATUSES)}"] if theirs else []),
        *_exports(ours),
        ", ".join(processors),
        f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}",
        latest["date"][:10],
        f"[rows]({source})",
    ]
    return _HEADER + "".join(lines) + "\n" + "; ".join(facts) + ".\n"


def _told(rows: Sequence[Row], statuses: Sequence[str]) -> str:
    counts = Counter(verdict_of(row) for row in rows)
    return ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])


def _only_mixed(rows: Sequence[Row]) -> list[str]:
    """Count the networks that only a cut through mixing operations makes smaller."""
    found = sum(
        row["status"] == "ok"
        and int(row.get("params_after_exact") or 0) == int(row["params_before"])
        for row in rows
    )
    return [f"{found} of them only with `inexact=True`"] if found else []


def _exports(rows: Sequence[Row]) -> list[str]:
    """Say how many of the pruned networks were exported; those whose dense twins fail count."""
    told = []
    for kind, title in (("torch", "`torch.export`"), ("onnx", "ONNX")):
        tried = [row["exports"].split(" + ") for row in rows if kind in row.get("exports", "")]
        if tried:
            count = sum(kind in found for found in tried)
            told.append(f"exported with {title}: {count} of {len(tried)} tried")
    failed = sum("nor dense" in row["exports"] for row in rows)
    return [*told, *([f"the others fail unpruned, too: {failed}"] if failed else [])]


def _line(title: str, suites: Sequence[str], rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row["suite"] in suites]
    if not mine:
        return ""
    tools = [[row for row in mine if row["tool"] == t] for t in ("flyweight", "torch-pruning")]
    models = len({(row["suite"], row["model"]) for row in mine})
    fine = [_fine(mine, models) for mine in tools]
    cells = [f"**{fine[0]}** / {fine[1]}"]
    cells += [f"**{measure(tools[0])}** / {measure(tools[1])}" for measure in (_kept, _slowest)]
    return f"| {title} | {models} | {' | '.join(cells)} |\n"


def _fine(rows: Sequence[Row], models: int) -> str:
    """Count the networks that are ok; say of how many where the tool did not run on all."""
    fine = sum(row["status"] == "ok" for row in rows)
    return f"{fine} of {len(rows)}" if 0 < len(rows) < models else str(fine) if rows else "-"


def _kept(rows: Sequence[Row]) -> str:
    kept = [kept_of(row) for row in rows if row["status"] == "ok"]
    return f"{100 * statistics.median(kept):.0f} %" if kept else "-"


def _slowest(rows: Sequence[Row]) -> str:
    taken = [seconds_of(row) for row in rows if row["status"] != "timeout"]
    endless = sum(row["status"] == "timeout" for row in rows)
    told = [f"{max(taken):.1f}"] if taken else []
    return ", ".join([*told, *([f"{endless} unfinished"] if endless else [])]) or "-"
