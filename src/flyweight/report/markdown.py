"""Markdown text of a report, readable in a terminal and on GitHub."""

import re
from collections.abc import Sequence
from itertools import groupby

from flyweight.report.change import compare
from flyweight.report.formatting import ABSENT, cell, common_scale, full, head, short
from flyweight.report.headline import headline
from flyweight.report.quantization_sections import (
    comparison,
    costliest,
    loss_text,
    step_cells,
    summary,
)
from flyweight.report.rows import Quantity, Report, ReportImage
from flyweight.report.units import unit_of


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, with links to images relative to the run folder."""
    parts = (
        f"# {_escaped(report.title)}",
        f"**{_escaped(headline(report))}**",
        result_table(report),
        _classes(report),
        _images(report.images),
        _widths(report),
        _quantization(report),
        _methods(report),
        _environment(report),
        *(_escaped(note) for note in report.notes),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def result_table(report: Report) -> str:
    """Return the table of all quantities: with more than three stages, one line per stage."""
    return stage_table(report) if len(report.rows) > 3 else comparison_table(report)


def comparison_table(report: Report) -> str:
    """Return the table of all quantities: one line per quantity, one column per stage.

    The unit is in the first cell of the line. Every stage after the first is followed by a column
    with the change from the first stage.
    """
    header = ["Quantity", report.stages[0]]
    for stage in report.stages[1:]:
        header += [stage, "change" if len(report.rows) == 2 else f"{stage}: change"]
    return _table(header, [_line(report.quantities(key)) for key in report.keys])


def stage_table(report: Report) -> str:
    """Return the table of all quantities: one line per stage, one column per quantity.

    A metric is followed by its change from the first stage; a ratio follows in parentheses.
    """
    header = ["Network"]
    lines = [[stage] for stage in report.stages]
    for key in report.keys:
        quantities = report.quantities(key)
        scale = common_scale(quantities)
        named = next(quantity for quantity in quantities if quantity is not None)
        points = unit_of(named.unit).compared == "points"
        header += [head(named, scale), "change"] if points else [head(named, scale)]
        for line, quantity in zip(lines, quantities, strict=True):
            before = quantities[0] if line is not lines[0] else None
            change = compare(before, quantity) if before and quantity else None
            shown = cell(quantity, scale)
            if points:
                line += [shown, full(change) if change else ""]
            else:
                line.append(f"{shown} ({short(change)})" if change and change.amount else shown)
    return _table(header, lines)


def _line(quantities: Sequence[Quantity | None]) -> list[str]:
    scale = common_scale(quantities)
    named = next(quantity for quantity in quantities if quantity is not None)
    baseline = quantities[0]
    cells = [head(named, scale), cell(baseline, scale)]
    for quantity in quantities[1:]:
        changed = full(compare(baseline, quantity)) if baseline and quantity else ""
        cells += [cell(quantity, scale), changed]
    return cells


def _table(header: list[str], lines: list[list[str]]) -> str:
    """Return a table with padded cells, the first column left-aligned, the others right-aligned."""
    rows = [[_escaped(cell) for cell in row] for row in (header, *lines)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _images(images: Sequence[ReportImage]) -> str:
    if not images:
        return ""
    parts = ["## Images"]
    for title, group in groupby(images, key=lambda image: image.title):
        members = list(group)
        shown = " ".join(
            f"![{_escaped(f'{title}, {image.stage}')}](<{_link(image.path)}>)" for image in members
        )
        captions = [f"{image.stage}: {image.caption}" for image in members if image.caption]
        parts += [f"### {_escaped(title)}", shown, _escaped("; ".join(captions))]
    return "\n\n".join(part for part in parts if part)


def _classes(report: Report) -> str:
    found = report.class_results
    if found is None:
        return ""
    lines = [
        [
            one.name,
            f"{one.count:,}",
            *(ABSENT if value is None else f"{100 * value:.1f}" for value in one.values),
        ]
        for one in found.classes
    ]
    header = ["Class", found.counted, *(f"{stage} (%)" for stage in found.stages)]
    return f"## {found.metric} of every class\n\n{_table(header, lines)}"


def _widths(report: Report) -> str:
    if not report.widths:
        return ""
    lines = [
        [width.name, str(width.before), str(width.after), f"{100 * width.after / width.before:.0f}"]
        for width in report.widths
    ]
    return "## Channels per layer\n\n" + _table(["Layer", "before", "after", "kept (%)"], lines)


def _quantization(report: Report) -> str:
    found = report.quantization
    if found is None:
        return ""
    parts = [
        "## Quantization",
        _escaped(summary(found)),
        _table(
            ["In the runtime", "float", "int8", "change"], [[*row] for row in comparison(found)]
        ),
    ]
    if found.steps:
        steps = [[*step_cells(found, place)] for place in range(len(found.steps))]
        parts.append(_table(["Step", "before", "after", "points"], steps))
    costly = [[one.name, loss_text(one)] for one in costliest(found)]
    floats = [[one.name, one.precision, one.reason] for one in found.layers if one.reason]
    parts += [_table(["Layer", "cost of its quantization alone"], costly)] if costly else []
    parts += [_table(["Float layer", "precision", "reason"], floats)] if floats else []
    return "\n\n".join(parts)


def _methods(report: Report) -> str:
    lines = [f"- {_escaped(f'{name}: {method}')}" for name, method in methods(report)]
    return "## How it was measured\n\n" + "\n".join(lines) if lines else ""


def methods(report: Report) -> list[tuple[str, str]]:
    """Return name and method of every quantity, with the environment of that quantity."""
    found: dict[tuple[str, str], None] = {}
    for key in report.keys:
        for quantity in report.quantities(key):
            if quantity is not None:
                where = ", ".join(f"{k} {v}" for k, v in quantity.environment.items())
                found[
                    quantity.name, f"{quantity.method} ({where})" if where else quantity.method
                ] = None
    return list(found)


def _environment(report: Report) -> str:
    lines = [f"- {_escaped(f'{name}: {value}')}" for name, value in report.environment.items()]
    created = f"Made {report.created:%Y-%m-%d %H:%M %Z} by:"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", report.command)), default=0))
    command = f"{created}\n\n{fence}sh\n{report.command}\n{fence}" if report.command else ""
    listed = "## Environment\n\n" + "\n".join(lines) if lines else ""
    return "\n\n".join(part for part in (listed, command) if part)


# Characters that Markdown would interpret. An underscore inside a word and a bracket without a
# target are literal; a number sign and an angle bracket are markup only at the start of a line.
_SPECIAL = re.compile(r"[\\`*<|~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=[#\w]+;)|^[#>]")


def _escaped(text: str) -> str:
    """Return `text` on one line, escaped for Markdown and HTML."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def _link(path: str) -> str:
    return re.sub(r"[<>\\\n%]", lambda found: f"%{ord(found[0]):02X}", path)
