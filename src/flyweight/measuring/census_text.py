"""Text and JSON of a census."""

from dataclasses import asdict
from typing import Any

from flyweight.errors import counted
from flyweight.measuring.census import Census
from flyweight.runtimes.runtime_table import runtime_entry

_HEADINGS = ("layer", "kind", "precision", "why not integer")


def to_records(census: Census) -> dict[str, Any]:
    """Return the values that `flyweight bench --operators --json` prints."""
    return {
        "runtime": census.runtime,
        "versions": dict(census.versions),
        "integer_layers": census.integer_count,
        "float_islands": census.islands,
        "island_operations": dict(census.island_operations),
        "layers": [asdict(layer) for layer in census.layers],
    }


def to_text(census: Census) -> str:
    """Return the summary, the float islands, and a row for every layer."""
    rows = [_HEADINGS]
    rows += [(one.name, one.kind, one.precision, one.reason) for one in census.layers]
    parts = [f"{summary(census)}\n{_islands(census)}"]
    if census.layers:
        parts.append(_left_aligned(rows))
    return "\n\n".join(parts)


def summary(census: Census) -> str:
    """Return one line: "52 of 52 layers run on integers in ONNX Runtime"."""
    title = runtime_entry(census.runtime).title
    count = len(census.layers)
    verb = "runs" if count == 1 else "run"
    return f"{census.integer_count} of {counted(count, 'layer')} {verb} on integers in {title}"


def _islands(census: Census) -> str:
    if not census.islands:
        return "no float islands between integer layers"
    kinds = [f"{kind} {number}" for kind, number in census.island_operations.items()]
    further = f"; operations in them: {', '.join(kinds)}" if kinds else ""
    return f"{counted(census.islands, 'float island')} between integer layers{further}"


def _left_aligned(rows: list[tuple[str, str, str, str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
