"""Line charts as inline SVG. The style sheet of the page sets the colours by class name."""

import math
from collections.abc import Callable, Sequence

from flyweight.report import svg
from flyweight.report.rows import Curve
from flyweight.report.units import decimals_for, scale_for

WIDTH, HEIGHT = 460.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 18.0, 12.0, 40.0
_MOST_POINTS = 240

_Placer = Callable[[float, float], tuple[float, float]]


def line_chart(curves: Sequence[Curve], colours: Sequence[int]) -> str:
    """Return one chart with a line per curve.

    Args:
        curves: The lines, all of one name and one unit. Curves without points are not drawn.
        colours: Number of the style class `line-N` for each of `curves`.
    """
    drawn = [(curve, colour) for curve, colour in zip(curves, colours, strict=True) if curve.x]
    if not drawn:
        return ""
    scale = scale_for(curves[0].unit, (y for curve, _ in drawn for y in curve.y))
    x_ticks = ticks([x for curve, _ in drawn for x in curve.x], 5)
    y_ticks = ticks([y / scale.divisor for curve, _ in drawn for y in curve.y], 5)
    place = _placer(x_ticks, y_ticks)
    lines = [
        svg.polyline(
            [place(x, y / scale.divisor) for x, y in thinned(curve.x, curve.y)],
            class_=f"line line-{colour}",
        )
        for curve, colour in drawn
    ]
    label = f"{curves[0].name} over {curves[0].x_unit}: " + "; ".join(
        f"{curve.series} from {curve.y[0]:.3g} to {curve.y[-1]:.3g}" for curve, _ in drawn
    )
    return svg.element(
        "svg",
        {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": label},
        *_axes(x_ticks, y_ticks, place),
        svg.text(curves[0].x_unit, WIDTH - _RIGHT, HEIGHT - 6, text_anchor="end"),
        *lines,
    )


def ticks(values: Sequence[float], count: int) -> list[float]:
    """Return about `count` round numbers at equal steps that enclose `values`.

    Example:
        >>> ticks([0.3, 9.2], 5)
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-100):  # steps would be lost in rounding
        low, high = (0.0, high) if high > 1e-100 else (low - 1, low + 1)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * round_step for round_step in (1, 2, 5, 10) if power * round_step >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thinned(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Return the points of a line; of a long line, the extremes of equal intervals."""
    points = list(zip(x, y, strict=True))
    if len(points) <= _MOST_POINTS:
        return points
    interval = math.ceil(len(points) / (_MOST_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), interval):
        part = points[start : start + interval]
        kept.extend(sorted({min(part, key=_height), max(part, key=_height)}))
    return [points[0], *kept, points[-1]]


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _placer(x_ticks: list[float], y_ticks: list[float]) -> _Placer:
    """Return the function from data to coordinates of the drawing."""
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + across * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]),
            HEIGHT - _BOTTOM - up * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]),
        )

    return place


def _axes(x_ticks: list[float], y_ticks: list[float], place: _Placer) -> list[str]:
    drawn = []
    for value in y_ticks:
        left, height = place(x_ticks[0], value)
        right, _ = place(x_ticks[-1], value)
        line = {"x1": left, "x2": right, "y1": height, "y2": height, "class": "grid"}
        drawn.append(svg.element("line", line))
        drawn.append(svg.text(_tick(value, y_ticks), left - 8, height + 4, text_anchor="end"))
    for value in x_ticks:
        across, height = place(value, y_ticks[0])
        drawn.append(svg.text(_tick(value, x_ticks), across, height + 18, text_anchor="middle"))
    return drawn


def _tick(value: float, all_ticks: list[float]) -> str:
    step = all_ticks[1] - all_ticks[0]
    return f"{value:,.{decimals_for(step, digits=1)}f}"
