import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.report.line_charts import HEIGHT, WIDTH, line_chart, thinned, ticks
from flyweight.report.rows import Curve

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=50)


def curve(y: list[float], series: str = "dense") -> Curve:
    x = tuple(float(index) for index in range(len(y)))
    return Curve(name="Loss", series=series, x=x, y=tuple(y), unit="loss")


@given(VALUES)
def test_ticks_enclose_in_equal_steps(values: list[float]) -> None:
    found = ticks(values, 5)
    step = found[1] - found[0]
    assert found[0] <= min(values) + 1e-6 * step
    assert found[-1] >= max(values) - 1e-6 * step
    assert 2 <= len(found) <= 8
    assert [b - a for a, b in pairwise(found)] == pytest.approx([step] * (len(found) - 1), rel=1e-6)


@given(VALUES)
def test_lines_stay_within_the_picture(y: list[float]) -> None:
    drawn = ElementTree.fromstring(line_chart([curve(y)], [0]))
    for point in str(drawn.findall("polyline")[0].get("points")).split():
        x, height = map(float, point.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= height <= HEIGHT


def test_a_long_line_keeps_its_extremes() -> None:
    y = [1.0] * 5000
    y[1234], y[4321] = 9.0, -9.0
    x = [float(index) for index in range(5000)]
    kept = thinned(x, y)
    assert len(kept) <= 242
    assert {(1234.0, 9.0), (4321.0, -9.0), (0.0, 1.0), (4999.0, 1.0)} <= set(kept)
    assert [point[0] for point in kept] == sorted(point[0] for point in kept)


def test_chart_says_what_it_shows() -> None:
    drawn = line_chart([curve([9.0, 4.0]), curve([5.0, 3.0], "<pruned>")], [0, 1])
    assert "Loss over step: dense from 9 to 4; &lt;pruned&gt; from 5 to 3" in drawn
    assert 'class="line line-1"' in drawn
    assert line_chart([curve([])], [0]) == ""
