"""Charts of sensitivity curves in one image: a small chart per layer, all on the same axes.

All charts are drawn on one canvas, in inches: matplotlib's own subplots cost a tenth of a second
each, and a network may have a hundred and sixty layers.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from flyweight.files import replacing
from flyweight.report.line_charts import ticks
from flyweight.sensitivity.measured_curves import MeasuredCurves, Point

_Points = list[tuple[float, float]]
_COLUMNS = ((4, 2), (12, 4), (30, 6))
_MOST_COLUMNS = 8
_BOX, _PITCH = (1.75, 0.95), (2.15, 1.5)
_LEFT, _TOP, _BOTTOM = 0.55, 0.75, 0.3
_LINE, _LIMIT, _DENSE, _FAINT, _INK = "#2367c9", "#c2410c", "#8a94a0", "#e4e6e8", "#1b1f24"
_SMALL, _NAME_LENGTH = 7, 30


@dataclass(frozen=True)
class _Sheet:
    """Positions of all charts, in inches from the lower left corner."""

    curves: MeasuredCurves
    max_drop: float

    @cached_property
    def columns(self) -> int:
        """Number of charts in a row."""
        count = len(self.curves.curves)
        return min(next((n for most, n in _COLUMNS if count <= most), _MOST_COLUMNS), count)

    @property
    def rows(self) -> int:
        """Number of rows of charts."""
        return math.ceil(len(self.curves.curves) / self.columns)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the image."""
        width = _LEFT + _PITCH[0] * max(self.columns, 2)
        return width, _TOP + _PITCH[1] * self.rows + _BOTTOM

    @cached_property
    def scale(self) -> float:
        """Factor of values in the image: a metric between 0 and 1 is written in per cent."""
        values = [point.value for points in self.curves.curves.values() for point in points]
        fraction = min(values) >= 0 and max(*values, self.curves.baseline) <= 1
        return 100.0 if fraction else 1.0

    @cached_property
    def marks(self) -> list[float]:
        """Values of the metric that are marked by a horizontal line."""
        shown = [self.curves.baseline]
        for points in self.curves.curves.values():
            for point in points:
                shown += [point.value, *(point.interval or ())]
        return ticks(shown, 3)

    def corner(self, place: int) -> tuple[float, float]:
        """Return the lower left corner of a chart."""
        row, column = divmod(place, self.columns)
        return _LEFT + _PITCH[0] * column, self.size[1] - _TOP - _PITCH[1] * row - _BOX[1]

    def at(self, place: int, ratio: float, value: float) -> tuple[float, float]:
        """Return the position of a point of a chart."""
        left, bottom = self.corner(place)
        share = (value - self.marks[0]) / (self.marks[-1] - self.marks[0])
        return left + _BOX[0] * ratio, bottom + _BOX[1] * share

    def level(self, place: int, value: float) -> _Points:
        """Return a horizontal line through a chart."""
        return [self.at(place, 0, value), self.at(place, 1, value)]


def draw(curves: MeasuredCurves, path: str | Path, *, max_drop: float = 0.05) -> None:
    """Write a PNG of the curves, with intervals where points have them.

    Args:
        curves: At least one curve.
        path: The image file to write.
        max_drop: Share of the metric; a dashed line is drawn where the metric has lost this share.

    Raises:
        FileError: The file cannot be written.
    """
    # pyplot is not used, because it chooses a backend for the whole process.
    sheet = _Sheet(curves, max_drop)
    width, height = sheet.size
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    canvas = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    canvas.set_axis_off()
    _draw_lines(canvas, sheet)
    _draw_texts(canvas, sheet)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=130, format="png")


def _draw_lines(canvas: Axes, sheet: _Sheet) -> None:
    curves = sheet.curves
    limit = max(curves.baseline * (1 - sheet.max_drop), sheet.marks[0])
    places = range(len(curves.curves))
    layers = [
        (_FAINT, 0.8, "-", [sheet.level(p, mark) for p in places for mark in sheet.marks]),
        (_DENSE, 0.9, "-", [sheet.level(p, curves.baseline) for p in places]),
        (_LIMIT, 0.9, (0, (4, 3)), [sheet.level(p, limit) for p in places]),
        (_LINE, 1.4, "-", [_curve(sheet, p, points) for p, points in _numbered(sheet)]),
    ]
    bands = [area for place, points in _numbered(sheet) for area in _bands(sheet, place, points)]
    canvas.add_collection(PolyCollection(bands, facecolors=_LINE, alpha=0.2, linewidths=0))
    for colour, thickness, style, lines in layers:
        canvas.add_collection(
            LineCollection(lines, colors=colour, linewidths=thickness, linestyles=[style])
        )
    dots = [dot for place, points in _numbered(sheet) for dot in _curve(sheet, place, points)[1:]]
    across, up = zip(*dots, strict=True)
    canvas.scatter(across, up, s=5, color=_LINE, linewidths=0, zorder=3)


def _numbered(sheet: _Sheet) -> list[tuple[int, tuple[Point, ...]]]:
    return list(enumerate(sheet.curves.curves.values()))


def _curve(sheet: _Sheet, place: int, points: tuple[Point, ...]) -> _Points:
    start = sheet.at(place, 0, sheet.curves.baseline)
    return [start, *(sheet.at(place, point.ratio, point.value) for point in points)]


def _bands(sheet: _Sheet, place: int, points: tuple[Point, ...]) -> list[_Points]:
    """Return an area for every sequence of neighbouring points that have intervals."""
    found: list[_Points] = []
    baseline = sheet.curves.baseline
    run: list[tuple[float, float, float]] = [(0.0, baseline, baseline)]
    for point in (*points, Point(1.0, 0.0)):
        if point.interval is not None:
            run.append((point.ratio, *point.interval))
            continue
        if len(run) > 1:
            low = [sheet.at(place, ratio, end) for ratio, end, _ in run]
            high = [sheet.at(place, ratio, end) for ratio, _, end in reversed(run)]
            found.append([*low, *high])
        run = []
    return found


def _draw_texts(canvas: Axes, sheet: _Sheet) -> None:
    curves, top = sheet.curves, sheet.size[1]
    unit = " %" if sheet.scale == 100 else ""
    head = f"{curves.metric} after channels of one layer were removed"
    dashed = f"before any cut {sheet.scale * curves.baseline:.4g}{unit}; dashed line: lower by"
    small: dict[str, Any] = {"fontsize": _SMALL, "color": _INK}
    canvas.text(_LEFT, top - 0.25, head, fontsize=10, color=_INK)
    canvas.text(_LEFT, top - 0.42, f"{dashed} {100 * sheet.max_drop:g} % of it", **small)
    for place, layer in enumerate(curves.curves):
        left, bottom = sheet.corner(place)
        name = layer if len(layer) <= _NAME_LENGTH else f"...{layer[3 - _NAME_LENGTH :]}"
        canvas.text(left, bottom + _BOX[1] + 0.07, name, **small)
        for ratio, side in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
            across = left + _BOX[0] * ratio
            canvas.text(across, bottom - 0.15, f"{100 * ratio:g} %", ha=side, **small)
        if place % sheet.columns == 0:
            for mark in sheet.marks:
                _, up = sheet.at(place, 0, mark)
                number = f"{sheet.scale * mark:.6g}"
                canvas.text(left - 0.07, up, number, ha="right", va="center", **small)
    canvas.text(
        _LEFT, 0.1, "horizontal axis: share of the layer's channels that are removed", **small
    )
