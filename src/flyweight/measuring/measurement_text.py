"""Text and JSON of measurements."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flyweight.errors import counted
from flyweight.measuring.comparison import Comparison, compare
from flyweight.measuring.measure import Measurement
from flyweight.runtimes.protocol import FLOAT32

_HEADINGS = ("file", "threads", "median ms", "95% interval", "p95 ms", "min ms")
_HEADINGS_MORE = ("cpu ms", "load ms", "model MB", "peak MB", "file MB", "runs")


def comparisons(measurements: Sequence[Measurement]) -> tuple[Comparison, ...]:
    """Compare every row with that of the first file and runtime, at each thread count."""
    if not measurements:
        return ()
    first = measurements[0].name
    references = {row.threads: row for row in measurements if row.name == first}
    return tuple(compare(references[row.threads], row) for row in measurements if row.name != first)


def to_record(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON values, without the times of single inferences."""
    record = asdict(measurement)
    del record["blocks_ms"], record["blocks_cpu_ms"]
    record["interval_ms"] = list(measurement.interval_ms)
    record["notes"] = list(measurement.notes)
    record["input_shapes"] = {name: list(shape) for name, shape in measurement.input_shapes.items()}
    return record


def to_records(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the values that `flyweight bench --json` prints."""
    return {
        "measurements": [to_record(row) for row in measurements],
        "comparisons": [
            {**asdict(item), "interval": list(item.interval)} for item in comparisons(measurements)
        ],
    }


def to_text(measurements: Sequence[Measurement]) -> str:
    """Return the table, the comparisons with the first file, the notes and the environment."""
    if not measurements:
        return ""
    ordered = sorted(measurements, key=lambda row: row.threads)
    table = _align([(*_HEADINGS, *_HEADINGS_MORE), *map(_cells, ordered)])
    versus = [comparison_text(item) for item in comparisons(ordered)]
    notes = [
        f"! {row.name}, {counted(row.threads, 'thread')}: {note}"
        for row in ordered
        for note in row.notes
    ]
    parts = [table, "\n".join(versus), "\n".join(notes), _environment_line(ordered[0])]
    return "\n\n".join(part for part in parts if part)


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as one sentence."""
    low, high = comparison.interval
    name = f"{comparison.subject}, {counted(comparison.threads, 'thread')}"
    if comparison.verdict == "not comparable":
        return (
            f"{name}: cannot be compared with {comparison.reference}, because a process had to "
            "wait for its cores"
        )
    if comparison.verdict == "no difference":
        finding = f"no difference from {comparison.reference}"
    elif comparison.verdict == "faster":
        finding = f"{comparison.speedup:.2f}x as fast as {comparison.reference}"
    else:
        finding = f"slower than {comparison.reference}: {comparison.speedup:.2f}x as fast"
    of = " of processor time" if comparison.time == "processor time" else ""
    return f"{name}: {finding} (95% interval{of} {low:.3f} to {high:.3f})"


def _cells(row: Measurement) -> tuple[str, ...]:
    low, high = row.interval_ms
    return (
        row.name,
        str(row.threads),
        f"{row.median_ms:.3f}",
        f"{low:.3f}..{high:.3f}",
        f"{row.p95_ms:.3f}",
        f"{row.min_ms:.3f}",
        f"{row.cpu_ms:.3f}",
        f"{row.load_ms:.0f}",
        _megabytes(row.model_bytes),
        _megabytes(row.peak_bytes),
        _megabytes(row.file_bytes),
        str(row.runs),
    )


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.2f}"


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        name, *figures = row
        padded = [name.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _environment_line(row: Measurement) -> str:
    here = row.environment
    runtimes = ", ".join(f"{name} {version}" for name, version in sorted(here.runtimes.items()))
    facts = [
        f"{here.cpu}, {counted(here.cores, 'core')}",
        f"governor {here.governor}" if here.governor else "",
        f"load {here.load_before} before, {here.load_after} after",
        runtimes,
        f"precision {row.precision}" if row.precision != FLOAT32 else "",
        f"Python {here.python}",
        here.system,
        here.date,
        f"flyweight {here.commit[:12]}" if here.commit else "",
    ]
    return "; ".join(fact for fact in facts if fact)
