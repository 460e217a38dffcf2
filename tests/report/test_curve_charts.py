import re

import pytest

from flyweight.report.curve_charts import BOTTOM, LEFT, RIGHT, TOP, Frame, curve_chart
from flyweight.report.explorer import Layer, Spot

FRAME = Frame((0.0, 0.5, 1.0), percent=True)


def layer(*spots):
    rows = tuple(Spot(ratio=r, value=v, loss=0.0, interval=ends) for r, v, ends in spots)
    return Layer(name="a<b", spots=rows, orders=())


def test_points_lie_where_the_axes_say():
    assert FRAME.place(0, 0) == (LEFT, BOTTOM)
    assert FRAME.place(1, 1) == (RIGHT, TOP)
    assert FRAME.place(0.5, 0.25) == ((LEFT + RIGHT) / 2, BOTTOM - (BOTTOM - TOP) / 4)
    assert FRAME.place(0, 7) == (LEFT, TOP)


def test_words_follow_the_step():
    assert FRAME.text(0.5) == "50"
    assert Frame((0.8, 0.805, 0.81), percent=True).text(0.805) == "80.5"
    assert Frame((10.0, 12.0), percent=False).text(12.0) == "12"


def test_a_chart_has_its_line_and_says_it_in_words():
    drawn = curve_chart(layer((0.5, 0.4, None), (1.0, 0.0, None)), 0.8, FRAME)
    line = re.search(r'<polyline points="([^"]+)"', drawn)[1]
    middle = (LEFT + RIGHT) / 2
    expected = [(LEFT, 0.8), (middle, 0.4), (RIGHT, 0.0)]
    words = [f"{x:g},{round(BOTTOM - (BOTTOM - TOP) * value, 2):g}" for x, value in expected]
    assert line == " ".join(words)
    assert 'aria-label="a&lt;b: 80 at 0 %, 40 at 50 %, 0 at 100 %"' in drawn
    assert "polygon" not in drawn


@pytest.mark.parametrize(
    ("ends", "corners"),
    [
        ([(0.3, 0.5), (0.1, 0.2)], [6]),
        ([(0.3, 0.5), None, (0.1, 0.2)], [4]),  # from before any cut to the first point
        ([None, (0.3, 0.5), (0.1, 0.2)], [4]),
        ([None, (0.3, 0.5)], []),
    ],
)
def test_bands_span_neighbours_that_have_intervals(ends, corners):
    spots = [(0.25 * (place + 1), 0.4, one) for place, one in enumerate(ends)]
    drawn = curve_chart(layer(*spots), 0.8, FRAME)
    found = re.findall(r'<polygon points="([^"]+)" class="band"', drawn)
    assert [len(points.split()) for points in found] == corners
