"""Summary drawing (SVG) of a report: the seven steps, and the main results before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.report import svg
from flyweight.report.change import Change, compare
from flyweight.report.formatting import common_scale, short, with_unit
from flyweight.report.headline import highlights
from flyweight.report.rows import Quantity, Report
from flyweight.report.units import unit_of

STEPS = ("trained model", "trace", "plan", "prune", "fine-tune", "export", "measured report")

_WIDTH, _MARGIN = 960.0, 32.0
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
# Images on GitHub follow the colour scheme of the reader; the panel keeps the text legible.
_STYLE = f"""
svg {{ font-family: {_FONT}; }}
.panel {{ fill: #ffffff; stroke: #d9dde1; }} .ink {{ fill: #1b1f24; }} .muted {{ fill: #646c76; }}
.before {{ fill: #a3acb6; }} .after {{ fill: #2367c9; }} .track {{ fill: #eff0f1; }}
.outline {{ fill: none; stroke: #a3acb6; }} .curve {{ fill: none; stroke: #2367c9; }}
.thread {{ stroke: #646c76; fill: none; }}
.better {{ fill: #0b7a53; }} .worse {{ fill: #b4491d; }} .rule {{ stroke: #e4e6e8; }}
@media (prefers-color-scheme: dark) {{
.panel {{ fill: #1b1f23; stroke: #30363c; }} .ink {{ fill: #e7e9ec; }} .muted {{ fill: #9aa3ad; }}
.before {{ fill: #818b96; }} .after {{ fill: #6aa5ff; }} .track {{ fill: #262b30; }}
.outline {{ stroke: #818b96; }} .curve {{ stroke: #6aa5ff; }} .thread {{ stroke: #9aa3ad; }}
.better {{ fill: #4cc793; }} .worse {{ fill: #f0905f; }} .rule {{ stroke: #30363c; }}
}}
"""


@dataclass(frozen=True)
class _Box:
    """A place in the drawing: left edge, top edge and width, in units of its view box."""

    left: float
    top: float
    width: float


def summary_svg(report: Report) -> str:
    """Return the drawing: the seven steps, and below them the first row beside the last.

    The quantities are those of the headline: latency, size and metric, if measured. The drawing
    uses no external fonts, scripts or links, and follows the colour scheme of the reader.
    """
    keys = highlights(report) if len(report.rows) > 1 else ()
    height = 330.0 if keys else 158.0
    parts = [svg.element("rect", _panel(height)), *_flow()]
    if keys:
        parts.append(_line(_MARGIN, 158.0, _WIDTH - _MARGIN, 158.0, "rule"))
        parts.append(
            svg.text(report.title, _MARGIN, 190.0, class_="ink", font_size=15, font_weight=600)
        )
        parts += _trio(report, keys)
    frame = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {_WIDTH:.0f} {height:.0f}",
        "width": _WIDTH,
        "height": height,
        "role": "img",
    }
    style = svg.element("style", {}, _STYLE)
    return svg.element("svg", frame, svg.title(_description(report, keys)), style, *parts) + "\n"


def _description(report: Report, keys: Sequence[str]) -> str:
    flow = "Flow: " + ", ".join(STEPS) + "."
    changes = [f"{_last(report, key).name}: {short(_change(report, key))}" for key in keys]
    return f"{flow} {report.title}. {'; '.join(changes)}." if changes else flow


def _panel(height: float) -> dict[str, object]:
    edge = {"x": 0.5, "y": 0.5, "width": _WIDTH - 1, "height": height - 1}
    return {**edge, "rx": 12, "class": "panel"}


def _flow() -> list[str]:
    """Draw the seven steps: a symbol, its name, and an arrow to the next step."""
    pitch = (_WIDTH - 2 * _MARGIN) / len(STEPS)
    parts = []
    for index, (name, symbol) in enumerate(zip(STEPS, _SYMBOLS, strict=True)):
        middle = _MARGIN + pitch * (index + 0.5)
        parts += symbol(middle, 66.0)
        parts.append(
            svg.text(name, middle, 126.0, class_="ink", font_size=14, text_anchor="middle")
        )
        if index:
            parts.append(_arrow(middle - pitch / 2, 66.0))
    return parts


def _arrow(middle: float, height: float) -> str:
    path = f"M{middle - 11:.1f} {height:.1f}h20m-6 -5l6 5l-6 5"
    shape = {"d": path, "class": "thread", "stroke_width": 1.5, "stroke_linecap": "round"}
    return svg.element("path", {**shape, "stroke_linejoin": "round"})


_FULL = (26.0, 40.0, 48.0, 34.0, 44.0)
_KEPT = (14.0, 20.0, 20.0, 22.0, 16.0)


def _layers(middle: float, height: float, widths: Sequence[float], style: str) -> list[str]:
    """Draw a network: one bar per layer, whose width is the number of channels."""
    return [
        _rect(middle - width / 2, height - 29 + 12 * row, width, 9.0, style)
        for row, width in enumerate(widths)
    ]


def _trained(middle: float, height: float) -> list[str]:
    return _layers(middle, height, _FULL, "before")


def _traced(middle: float, height: float) -> list[str]:
    spine = svg.element(
        "path",
        {
            "d": f"M{middle:.1f} {height - 24.5:.1f}v48"
            f"M{middle:.1f} {height - 12.5:.1f}c34 0 34 24 0 24",
            "class": "thread",
            "stroke_width": 1.5,
        },
    )
    dots = [
        svg.element(
            "circle", {"cx": middle, "cy": height - 24.5 + 12 * row, "r": 4.5, "class": "before"}
        )
        for row in range(5)
    ]
    return [spine, *dots]


def _planned(middle: float, height: float) -> list[str]:
    """Draw the kept channels filled and all channels as an outline."""
    return [
        *_layers(middle, height, _FULL, "outline"),
        *(
            _rect(middle - full / 2, height - 29 + 12 * row, kept, 9.0, "after")
            for row, (full, kept) in enumerate(zip(_FULL, _KEPT, strict=True))
        ),
    ]


def _pruned(middle: float, height: float) -> list[str]:
    return _layers(middle, height, _KEPT, "after")


def _tuned(middle: float, height: float) -> list[str]:
    """Draw a loss curve that falls to a constant."""
    axes = f"M{middle - 26:.1f} {height - 28:.1f}v54h54"
    fall = f"M{middle - 20:.1f} {height - 22:.1f}c6 36 18 40 44 42"
    return [
        svg.element("path", {"d": axes, "class": "outline", "stroke_width": 1.5}),
        svg.element("path", {"d": fall, "class": "curve", "stroke_width": 3}),
    ]


def _exported(middle: float, height: float) -> list[str]:
    sheet = f"M{middle - 21:.1f} {height - 29:.1f}h28l14 14v43h-42z"
    fold = f"M{middle + 7:.1f} {height - 29:.1f}v14h14"
    drawn = {"class": "outline", "stroke_width": 1.5, "stroke_linejoin": "round"}
    inside = _layers(middle, height + 11.0, (12.0, 18.0, 14.0), "after")
    return [
        svg.element("path", {"d": sheet, **drawn}),
        svg.element("path", {"d": fold, **drawn}),
        *inside,
    ]


def _reported(middle: float, height: float) -> list[str]:
    pairs = ((-24.0, 50.0, 20.0), (-4.0, 44.0, 17.0), (16.0, 46.0, 45.0))
    parts = [
        _line(middle - 30, height + 28, middle + 34, height + 28, "thread"),
    ]
    for offset, before, after in pairs:
        parts.append(_rect(middle + offset, height + 27 - before, 7.0, before, "before"))
        parts.append(_rect(middle + offset + 8, height + 27 - after, 7.0, after, "after"))
    return parts


_SYMBOLS = (_trained, _traced, _planned, _pruned, _tuned, _exported, _reported)


def _trio(report: Report, keys: Sequence[str]) -> list[str]:
    gap = 40.0
    width = (_WIDTH - 2 * _MARGIN - gap * (len(keys) - 1)) / len(keys)
    parts = []
    for index, key in enumerate(keys):
        parts += _pair(report, key, _Box(_MARGIN + index * (width + gap), 222.0, width))
    return parts


def _pair(report: Report, key: str, box: _Box) -> list[str]:
    """Draw one quantity: its name, its change, and a bar for the first and the last row."""
    first, last = report.rows[0], report.rows[-1]
    before, after = first.quantities[key], last.quantities[key]
    change = _change(report, key)
    scale = common_scale([before, after])
    points = unit_of(before.unit).compared == "points"
    longest = max(before.value, after.value, 1.0 if points else 0.0) or 1.0
    tone = change.verdict if change.verdict in ("better", "worse") else "muted"
    right = box.left + box.width
    parts = [
        svg.text(before.name, box.left, box.top, class_="muted", font_size=13),
        svg.text(
            short(change),
            right,
            box.top,
            class_=tone,
            font_size=15,
            font_weight=600,
            text_anchor="end",
        ),
    ]
    bars = ((first.stage, before, "before"), (last.stage, after, "after"))
    for row, (stage, quantity, style) in enumerate(bars):
        top = box.top + 16 + 38 * row
        parts += _bar(_Box(box.left, top, box.width), quantity.value / longest, style)
        label = {"class_": "muted", "font_size": 12}
        parts.append(svg.text(stage, box.left, top + 24, **label))
        value = with_unit(quantity, scale)
        parts.append(
            svg.text(value, right, top + 24, class_="ink", font_size=12, text_anchor="end")
        )
    return parts


def _bar(box: _Box, share: float, style: str) -> list[str]:
    return [
        _rect(box.left, box.top, box.width, 10.0, "track"),
        _rect(box.left, box.top, box.width * max(0.0, share), 10.0, style),
    ]


def _rect(left: float, top: float, width: float, height: float, style: str) -> str:
    edges: dict[str, object] = {"x": left, "y": top, "width": width, "height": height}
    return svg.element("rect", {**edges, "rx": 2, "class": style})


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return svg.element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def _change(report: Report, key: str) -> Change:
    return compare(report.rows[0].quantities[key], _last(report, key))


def _last(report: Report, key: str) -> Quantity:
    return report.rows[-1].quantities[key]
