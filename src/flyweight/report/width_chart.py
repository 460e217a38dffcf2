"""Chart of the widths of a whole network: one bar per layer, as tall as its channels."""

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from flyweight.errors import counted
from flyweight.report import svg
from flyweight.report.line_charts import ticks
from flyweight.report.rows import Width

WIDTH, HEIGHT = 1016.0, 236.0
_LEFT, _TOP, _BOTTOM = 48.0, 10.0, 34.0
_WIDEST = 30.0  # of a bar with its gap
_CHARACTER = 6.6  # of a label, at the font size of the style sheet

_Name = list[str]  # split at its dots
_Part = tuple[int, str, int]  # index of the first layer, name, number of layers


def width_chart(widths: Sequence[Width]) -> str:
    """Return one chart of all layers in their order, with name and widths as a tooltip.

    Outlines are the widths before, filled bars the widths after.

    Args:
        widths: The layers, at least one.
    """
    full = float(max(width.before for width in widths))
    marks = [mark for mark in ticks([0.0, full], 4) if mark <= full]
    pitch = min(_WIDEST, (WIDTH - _LEFT) / len(widths))
    label = f"Channels of {counted(len(widths), 'layer')} in their order, before and after"
    return svg.element(
        "svg",
        {"viewBox": f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", "role": "img", "aria-label": label},
        *_grid(marks, full, _LEFT + pitch * len(widths)),
        *(_bar(width, index, pitch, full) for index, width in enumerate(widths)),
        *_names(widths, pitch),
    )


def _height(channels: float, full: float) -> float:
    return (HEIGHT - _TOP - _BOTTOM) * channels / full


def _grid(marks: Sequence[float], full: float, right: float) -> Iterator[str]:
    for mark in marks:
        level = HEIGHT - _BOTTOM - _height(mark, full)
        line = {"x1": _LEFT, "x2": right, "y1": level, "y2": level, "class": "grid"}
        yield svg.element("line", line)
        yield svg.text(f"{mark:,.0f}", _LEFT - 8, level + 4, text_anchor="end")


def _bar(width: Width, index: int, pitch: float, full: float) -> str:
    left, gap = _LEFT + index * pitch, min(4.0, pitch / 4)
    kept = 100 * width.after / width.before
    tooltip = f"{width.name}: {width.before:,} \N{RIGHTWARDS ARROW} {width.after:,} ({kept:.0f} %)"
    over = {"x": left, "y": _TOP, "width": pitch, "height": HEIGHT - _TOP - _BOTTOM}
    bars = [
        svg.element(
            "rect",
            {
                "class": name,
                "x": left + gap / 2,
                "y": HEIGHT - _BOTTOM - _height(channels, full),
                "width": pitch - gap,
                "height": _height(channels, full),
            },
        )
        for name, channels in (("before", width.before), ("after", width.after))
    ]
    whole = svg.element("rect", {"class": "over", **over})
    return svg.element("g", {"class": "layer"}, svg.title(tooltip), whole, *bars)


def _names(widths: Sequence[Width], pitch: float) -> Iterator[str]:
    """Yield names of the parts of the network, below their bars, if a name fits under its part."""
    names = [width.name.split(".")[:-1] or [width.name] for width in widths]
    beginning = len(_shared(names)) if len(names) > 1 else 0
    names = [name[beginning:] for name in names]
    deepest = max(map(len, names))
    levels = [_parts(names, depth, pitch) for depth in range(max(1, deepest), 0, -1)]
    for place, name, _ in max(levels, key=lambda parts: sum(part[2] for part in parts)):
        left = _LEFT + pitch * place
        line = {"x1": left, "x2": left, "y1": HEIGHT - _BOTTOM, "y2": HEIGHT - _BOTTOM + 8}
        yield svg.element("line", {**line, "class": "grid"})
        yield svg.text(name, left + 2, HEIGHT - _BOTTOM + 20)


def _parts(names: Sequence[_Name], depth: int, pitch: float) -> list[_Part]:
    """Return runs of layers that share `depth` parts of their names, if a name fits under them."""
    found, place = [], 0
    for short, group in groupby(names, key=lambda name: name[:depth]):
        members = list(group)
        labels = (".".join(name) for name in (_shared(members), short))
        fitting = (n for n in labels if 2 + len(n) * _CHARACTER <= len(members) * pitch)
        name = next(fitting, "")
        if name:
            found.append((place, name, len(members)))
        place += len(members)
    return found


def _shared(names: Sequence[_Name]) -> _Name:
    """Return the first parts that all names share."""
    ends = zip(min(names), max(names), strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], ends)]
