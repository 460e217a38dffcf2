"""Sensitivity curves as a picture: one small chart per layer, all on the same axes."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.files import replacing
from flyweight.sensitivity.curves import Point, Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACROSS = ((4, 2), (12, 4), (30, 6))
_MOST_ACROSS = 8
_WIDTH, _HEIGHT, _HEAD = 2.3, 1.55, 0.75
_LINE, _LIMIT, _DENSE, _INK = "#2367c9", "#c2410c", "#8a94a0", "#1b1f24"
_NAME_LENGTH = 34


def draw(curves: Sensitivity, path: str | Path, *, max_drop: float = 0.05) -> None:
    """Write a PNG of the curves, with intervals where points have them.

    Args:
        curves: What was measured.
        path: Of the file, whose ending is .png.
        max_drop: Share of the metric at whose loss a dashed line is drawn.

    Raises:
        FileError: The file cannot be written.
    """
    # Not pyplot: it would choose a backend for the whole program.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(curves.curves)
    across = next((n for most, n in _ACROSS if count <= most), _MOST_ACROSS)
    across = max(min(across, count), 1)
    down = max(math.ceil(count / across), 1)
    figure = Figure(figsize=(_WIDTH * across + 0.6, _HEIGHT * down + _HEAD), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    charts: list[Axes] = list(grid.flat)
    scale = 100 if _is_fraction(curves) else 1
    for chart, (layer, points) in zip(charts, curves.curves.items(), strict=False):
        _chart(chart, layer, points, curves.baseline, (scale, max_drop))
    for chart in charts[count:]:
        chart.set_axis_off()
    for chart in charts[max(count - across, 0) : count]:
        chart.tick_params(labelbottom=True)
    per_cent = " (%)" if scale == 100 else ""
    figure.suptitle(
        f"{curves.metric}{per_cent} after one layer lost channels; {scale * curves.baseline:.4g} "
        f"before. Dashed: a loss of {100 * max_drop:g} % of it",
        fontsize=9,
        color=_INK,
    )
    figure.supxlabel("channels removed (%)", fontsize=8, color=_INK)
    with replacing(path) as draft:
        figure.savefig(draft, dpi=120, format="png")


def _is_fraction(curves: Sensitivity) -> bool:
    values = [point.value for points in curves.curves.values() for point in points]
    return min(values, default=0) >= 0 and max([*values, curves.baseline]) <= 1


def _chart(
    chart: "Axes",
    layer: str,
    points: tuple[Point, ...],
    baseline: float,
    shown: tuple[float, float],
) -> None:
    scale, max_drop = shown
    ratios = [0.0, *(100 * point.ratio for point in points)]
    values = [scale * value for value in (baseline, *(point.value for point in points))]
    ends = [(baseline, baseline), *(p.interval or (math.nan, math.nan) for p in points)]
    chart.axhline(scale * baseline, color=_DENSE, linewidth=0.8)
    chart.axhline(scale * baseline * (1 - max_drop), color=_LIMIT, linewidth=0.9, linestyle="--")
    low, high = ([scale * end for end in side] for side in zip(*ends, strict=True))
    chart.fill_between(ratios, low, high, color=_LINE, alpha=0.2, linewidth=0)
    chart.plot(ratios, values, color=_LINE, linewidth=1.3, marker=".", markersize=3.5)
    name = layer if len(layer) <= _NAME_LENGTH else f"...{layer[3 - _NAME_LENGTH :]}"
    chart.set_title(name, fontsize=7, color=_INK, loc="left", pad=3)
    chart.set_xlim(0, 100)
    chart.set_xticks([0, 50, 100])
    chart.tick_params(labelsize=7, length=2, color=_DENSE, labelcolor=_INK)
    chart.spines[["top", "right"]].set_visible(False)
    chart.spines[["left", "bottom"]].set_color(_DENSE)
