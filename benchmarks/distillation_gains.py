"""Gains of students with a teacher over students without one, from the rows of their runs."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from scipy.stats import t as student_t
from tables import RESULTS

GAINS = RESULTS / "distillation_gains.csv"
GAIN_COLUMNS = (
    *("case", "cut", "tested_on", "steps", "clip_norm", "method", "metric_name", "macs_share"),
    "runs",
    *("metric_before", "plain", "metric", "gain", "gain_low", "gain_high", "dense_metric"),
    "dense_longer",
)
_GROUP = ("case", "cut", "tested_on", "steps", "clip_norm")
_TRAINING = tuple(name for name in _GROUP if name != "cut")
_CONFIDENCE = 0.95


def gain_rows(rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, object]]:
    """Yield a row for each method of each case and cut: means, and the gain over `plain`.

    The gain is the mean of differences between runs of equal seeds, with its 95 % interval by
    Student's t distribution; a single pair has no interval.

    Args:
        rows: Of `results/distillation.csv`.
    """
    found = list(rows)
    groups: dict[tuple[str, ...], dict[str, dict[str, Mapping[str, str]]]] = defaultdict(dict)
    for row in found:
        if row["method"] != "dense":
            key = tuple(row[name] for name in _GROUP)
            groups[key].setdefault(row["method"], {})[row["seed"]] = row
    longer = {
        (*(row[name] for name in _TRAINING), row["seed"]): float(row["metric"])
        for row in found
        if row["method"] == "dense"
    }
    for key, methods in groups.items():
        plain = methods.pop("plain", {})
        for method, runs in methods.items():
            seeds = sorted(runs.keys() & plain.keys())
            if seeds:
                trained = [
                    longer[key[0], *key[2:], seed]  # It has no cut.
                    for seed in seeds
                    if (key[0], *key[2:], seed) in longer
                ]
                yield _row(key, method, [(plain[one], runs[one]) for one in seeds], trained)


def _row(
    key: tuple[str, ...],
    method: str,
    pairs: list[tuple[Mapping[str, str], Mapping[str, str]]],
    dense_longer: list[float],
) -> dict[str, object]:
    taught = [float(row["metric"]) for _, row in pairs]
    alone = [float(row["metric"]) for row, _ in pairs]
    gains = [one - other for one, other in zip(taught, alone, strict=True)]
    first = pairs[0][1]
    row: dict[str, object] = dict(zip(_GROUP, key, strict=True))
    row |= {name: first[name] for name in ("metric_name", "macs_share", "metric_before")}
    row |= {"method": method, "runs": len(pairs), "dense_metric": first["dense_metric"]}
    row |= {"plain": _shown(alone), "metric": _shown(taught), "gain": _shown(gains)}
    row["dense_longer"] = _shown(dense_longer) if dense_longer else ""
    if len(gains) > 1:
        half = half_width(gains)
        row["gain_low"] = f"{statistics.mean(gains) - half:.4f}"
        row["gain_high"] = f"{statistics.mean(gains) + half:.4f}"
    return row


def half_width(values: list[float]) -> float:
    """Return half of the 95 % interval of a mean, by Student's t distribution."""
    quantile = student_t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)
    return float(quantile * statistics.stdev(values) / len(values) ** 0.5)


def _shown(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f}"
