"""Sensitivity curves as small charts, one per layer, all on the same axes."""

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.report import svg
from flyweight.report.explorer import Explorer, Layer
from flyweight.report.line_charts import ticks
from flyweight.report.units import decimals_for

WIDTH, HEIGHT = 230.0, 132.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 222.0, 8.0, 110.0
_TICKS = 3


@dataclass(frozen=True)
class Frame:
    """The common axes of all charts.

    Attributes:
        marks: Values with a grid line, ascending. The first and the last are the ends of the axis.
        percent: Whether values are shown as percentages.
    """

    marks: tuple[float, ...]
    percent: bool

    def place(self, ratio: float, value: float) -> tuple[float, float]:
        """Return the coordinates of a point in the drawing."""
        low, high = self.marks[0], self.marks[-1]
        share = (min(max(value, low), high) - low) / (high - low)
        return LEFT + (RIGHT - LEFT) * ratio, BOTTOM - (BOTTOM - TOP) * share

    def text(self, value: float) -> str:
        """Return a value as text for the axis."""
        step = self.marks[1] - self.marks[0]
        scale = 100 if self.percent else 1
        return f"{value * scale:,.{decimals_for(step * scale, digits=1)}f}"


def frame_of(shown: Explorer) -> Frame:
    """Return axes that include every curve with its intervals and the metric before any cut."""
    values = [shown.baseline]
    for layer in shown.layers:
        for spot in layer.spots:
            values += [spot.value, *(spot.interval or ())]
    return Frame(tuple(ticks(values, _TICKS)), shown.is_fraction)


def curve_chart(layer: Layer, baseline: float, frame: Frame) -> str:
    """Return the chart of one layer. The script of the page moves its dot and its limit line."""
    line = [(0.0, baseline), *((spot.ratio, spot.value) for spot in layer.spots)]
    label = f"{layer.name}: " + ", ".join(
        f"{frame.text(value)} at {100 * ratio:.0f} %" for ratio, value in line
    )
    _, height = frame.place(0, baseline)
    across = {"x1": LEFT, "x2": RIGHT}
    data = {"data_left": LEFT, "data_right": RIGHT, "data_top": TOP, "data_bottom": BOTTOM}
    ends = {"data_low": repr(frame.marks[0]), "data_high": repr(frame.marks[-1])}
    size = {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria_label": label}
    return svg.element(
        "svg",
        {**size, **data, **ends},
        *_grid(frame),
        *_band(layer, baseline, frame),
        svg.element("line", {**across, "y1": height, "y2": height, "class": "dense"}),
        svg.element("line", {**across, "y1": height, "y2": height, "class": "limit"}),
        svg.polyline([frame.place(*point) for point in line], class_="line line-1"),
        svg.element("circle", {"class": "chosen", "r": 0}),
    )


def _grid(frame: Frame) -> list[str]:
    drawn = []
    for value in frame.marks:
        _, height = frame.place(0, value)
        ends = {"x1": LEFT, "x2": RIGHT, "y1": height, "y2": height, "class": "grid"}
        drawn.append(svg.element("line", ends))
        drawn.append(svg.text(frame.text(value), LEFT - 6, height + 4, text_anchor="end"))
    for ratio, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        place, _ = frame.place(ratio, frame.marks[0])
        drawn.append(svg.text(f"{100 * ratio:.0f} %", place, HEIGHT - 6, text_anchor=anchor))
    return drawn


def _band(layer: Layer, baseline: float, frame: Frame) -> list[str]:
    """Return the area between the interval ends, one polygon per run of points with intervals."""
    drawn: list[str] = []
    run: list[tuple[float, float, float]] = [(0.0, baseline, baseline)]
    for spot in layer.spots:
        if spot.interval is None:
            drawn += _area(run, frame)
            run = []
        else:
            run.append((spot.ratio, *spot.interval))
    return drawn + _area(run, frame)


def _area(run: Sequence[tuple[float, float, float]], frame: Frame) -> list[str]:
    if len(run) < 2:
        return []
    outline = [frame.place(ratio, low) for ratio, low, _ in run]
    outline += [frame.place(ratio, high) for ratio, _, high in reversed(run)]
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in outline)
    return [svg.element("polygon", {"points": points, "class": "band"})]
