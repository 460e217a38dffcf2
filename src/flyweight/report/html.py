"""HTML page of a report, in one file: styles, scripts, drawings and images are embedded.

The page is the list `SECTIONS`. A section is a template and a function that returns the values of
the template, or None if the report has no data for the section.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flyweight.errors import counted
from flyweight.report.change import compare
from flyweight.report.class_sections import class_values
from flyweight.report.embedded_images import embed
from flyweight.report.explorer_sections import explorer_values, sensitivity_values
from flyweight.report.formatting import (
    ABSENT,
    common_scale,
    exact,
    full,
    head,
    interval,
    number,
    short,
    with_unit,
)
from flyweight.report.headline import headline
from flyweight.report.layer_blocks import Block, blocks_of
from flyweight.report.line_charts import line_chart
from flyweight.report.markdown import methods
from flyweight.report.quantization_sections import quantization_values
from flyweight.report.rows import Curve, Quantity, Report
from flyweight.report.units import Scale, scale_for, unit_of
from flyweight.report.width_chart import width_chart

_Gather = Callable[[Report, Path], Mapping[str, Any] | None]
_SCRIPTS = ("solving.js", "explorer.js")
_LINE_COLOURS = 8
_SHORT_NAME, _NAME_COLUMNS = 8, 26


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        name: Anchor in the page, and name of its template `sections/<name>.html`.
        title: Heading.
        gather: Returns the values of the template, or None to leave the section out.
    """

    name: str
    title: str
    gather: _Gather


def to_html(report: Report, folder: Path) -> str:
    """Return the page.

    Args:
        report: The report.
        folder: The run folder; paths of images are relative to it.

    Raises:
        FileError: An image is missing, is outside the folder or is neither PNG nor JPEG.
    """
    templates = _templates()
    shown = []
    for section in SECTIONS:
        values = section.gather(report, folder)
        if values is not None:
            body = templates.get_template(f"sections/{section.name}.html").render(values)
            shown.append({"name": section.name, "title": section.title, "body": Markup(body)})
    script = _script() if report.explorer is not None else None
    page = templates.get_template("page.html")
    return page.render(report=report, headline=headline(report), sections=shown, script=script)


@dataclass(frozen=True)
class _Script:
    """The only script that the page may run, and its digest for the content security policy."""

    text: Markup
    digest: str


def _script() -> _Script:
    # Read without the template engine, because it would interpret the braces.
    folder = resources.files("flyweight.report") / "templates"
    text = "".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Script(Markup(text), digest)


def _glance(report: Report, _: Path) -> Mapping[str, Any] | None:
    if _is_a_scan(report):
        return None
    cards = [_card(report, key) for key in report.keys]
    return {"cards": cards} if cards else None


def _is_a_scan(report: Report) -> bool:
    """Whether the report holds only a scan of one network; the explorer shows its costs."""
    return len(report.rows) == 1 and report.explorer is not None


def _card(report: Report, key: str) -> dict[str, Any]:
    found = report.quantities(key)
    present = [(stage, q) for stage, q in zip(report.stages, found, strict=True) if q is not None]
    scale = common_scale(found)
    longest = _full_bar(present[0][1].unit, [quantity for _, quantity in present])
    change = compare(found[0], found[-1]) if found[0] and found[-1] and len(found) > 1 else None
    return {
        "name": present[0][1].name,
        "change": short(change) if change else "",
        "reason": change.reason if change else "",
        "verdict": change.verdict.replace(" ", "-") if change else "same",
        "bars": [
            {
                "stage": stage,
                "colour": _stage_colour(stage, report),
                "value": with_unit(quantity, scale),
                "interval": interval(quantity, scale).strip(),
                "length": _percent(quantity.value, longest),
                "whisker": _whisker(quantity, longest),
            }
            for stage, quantity in present
        ],
    }


def _full_bar(unit: str, quantities: Sequence[Quantity]) -> float:
    """Return the value of a bar of full length: 100 % for fractions."""
    largest = max(q.value if q.high is None else q.high for q in quantities)
    return max(1.0, largest) if unit_of(unit).compared == "points" else largest


def _whisker(quantity: Quantity, longest: float) -> tuple[str, str] | None:
    if quantity.low is None or quantity.high is None:
        return None
    return _percent(quantity.low, longest), _percent(quantity.high, longest)


def _percent(value: float, longest: float) -> str:
    return f"{100 * max(0.0, value) / longest:.2f}%" if longest > 0 else "0%"


def _numbers(report: Report, _: Path) -> Mapping[str, Any] | None:
    if not report.keys or _is_a_scan(report):
        return None
    lines = [_line(report.quantities(key), report.stages) for key in report.keys]
    return {"stages": report.stages, "lines": lines}


def _line(quantities: Sequence[Quantity | None], stages: Sequence[str]) -> dict[str, Any]:
    scale = common_scale(quantities)
    named = next(quantity for quantity in quantities if quantity is not None)
    baseline = quantities[0]
    return {
        "head": head(named, scale),
        "first": _cell(baseline, scale),
        "others": [
            {"stage": stage, **_cell(quantity, scale), **_change(baseline, quantity)}
            for stage, quantity in zip(stages[1:], quantities[1:], strict=True)
        ],
    }


def _cell(quantity: Quantity | None, scale: Scale) -> dict[str, str]:
    if quantity is None:
        return {"number": ABSENT, "interval": "", "exact": ""}
    return {
        "number": number(quantity.value, quantity.unit, scale),
        "interval": interval(quantity, scale).strip(),
        "exact": exact(quantity),
    }


def _change(before: Quantity | None, after: Quantity | None) -> dict[str, str]:
    if before is None or after is None:
        return {"change": "", "verdict": "same"}
    change = compare(before, after)
    return {"change": full(change), "verdict": change.verdict.replace(" ", "-")}


def _widths(report: Report, _: Path) -> Mapping[str, Any] | None:
    if not report.widths:
        return None
    blocks = [_block(block) for block in blocks_of(report.widths)]
    longest_name = max(len(layer["name"]) for block in blocks for layer in block["layers"])
    before = sum(width.before for width in report.widths)
    after = sum(width.after for width in report.widths)
    narrowed = sum(width.after < width.before for width in report.widths)
    return {
        "blocks": blocks,
        "drawing": Markup(width_chart(report.widths)),
        "name_columns": min(longest_name, _NAME_COLUMNS) + 2,
        "columns": 3 if longest_name <= _SHORT_NAME else 2,
        "summary": f"{narrowed} of {counted(len(report.widths), 'layer')} narrowed; "
        f"{after:,} of {before:,} channels stay.",
        "stages": (report.stages[0], report.stages[-1]),
    }


def _block(block: Block) -> dict[str, Any]:
    """Return a block of layers; the widest layer of the block has a bar of full length.

    Blocks have separate scales, because widths differ much between the blocks of a network.
    """
    widest = max(layer.width.before for layer in block.layers)
    return {
        "name": block.name,
        "layers": [
            {
                "name": layer.name,
                "width": layer.width,
                "before": _percent(layer.width.before, widest),
                "after": _percent(layer.width.after, widest),
                "kept": f"{100 * layer.width.after / layer.width.before:.0f}",
            }
            for layer in block.layers
        ],
    }


def _quantization(report: Report, _: Path) -> Mapping[str, Any] | None:
    return quantization_values(report.quantization)


def _explorer(report: Report, _: Path) -> Mapping[str, Any] | None:
    return explorer_values(report.explorer) if report.explorer is not None else None


def _sensitivity(report: Report, _: Path) -> Mapping[str, Any] | None:
    return sensitivity_values(report.explorer) if report.explorer is not None else None


def _curves(report: Report, _: Path) -> Mapping[str, Any] | None:
    charts: dict[tuple[str, str], list[Curve]] = {}
    for curve in report.curves:
        if curve.x:
            charts.setdefault((curve.name, curve.unit), []).append(curve)
    if not charts:
        return None
    drawn = []
    for (name, unit), curves in charts.items():
        colours = _colours([curve.series for curve in curves], report.stages)
        symbol = scale_for(unit, (y for curve in curves for y in curve.y)).symbol
        drawn.append(
            {
                "name": name if symbol.lower() in name.lower() else f"{name} ({symbol})",
                "legend": [
                    {"series": c.series, "colour": n} for c, n in zip(curves, colours, strict=True)
                ],
                "drawing": Markup(line_chart(curves, colours)),
            }
        )
    return {"charts": drawn}


def _colours(series: Sequence[str], stages: Sequence[str]) -> list[int]:
    """Return a colour number per series. A stage has the same colour in the whole page."""
    others = [name for name in dict.fromkeys(series) if name not in stages]
    order = (*stages, *others)
    return [order.index(name) % _LINE_COLOURS for name in series]


def _images(report: Report, folder: Path) -> Mapping[str, Any] | None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for image in report.images:
        of_a_model = image.stage in report.stages
        what = f"the predictions of the {image.stage} model" if of_a_model else image.stage
        shown = {
            "embedded": embed(image, folder),
            "colour": _stage_colour(image.stage, report),
            "alt": f"{image.title} with {what}{f': {image.caption}' if image.caption else ''}",
        }
        groups.setdefault(image.title, []).append(shown)
    return {"groups": groups} if groups else None


def _classes(report: Report, _: Path) -> Mapping[str, Any] | None:
    return class_values(report)


def _stage_colour(stage: str, report: Report) -> int:
    return _colours([stage], report.stages)[0]


def _provenance(report: Report, _: Path) -> Mapping[str, Any] | None:
    return {"report": report, "methods": methods(report)}


SECTIONS: tuple[Section, ...] = (
    Section("glance", "At a glance", _glance),
    Section("numbers", "Before and after", _numbers),
    Section("classes", "Results by class", _classes),
    Section("images", "Images", _images),
    Section("widths", "Channels per layer", _widths),
    Section("quantization", "Quantization", _quantization),
    Section("explorer", "Plan explorer", _explorer),
    Section("sensitivity", "Sensitivity", _sensitivity),
    Section("curves", "Training", _curves),
    Section("provenance", "How it was measured", _provenance),
)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("flyweight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
