import base64

import pytest
from pydantic import ValidationError

from flyweight.report.explorer import Channels, Explorer, Layer, Priced, Spot, packed
from flyweight.report.rows import Report


def small_explorer(**changes):
    """Return an explorer of one layer of four channels between fixed neighbours."""
    spots = (Spot(ratio=0.5, value=0.6, loss=0.25, interval=(0.5, 0.7)),)
    values = {
        "metric": "map_50",
        "baseline": 0.8,
        "plan": '{\n "numbers": ',
        "groups": (Channels(name="a.weight", size=4, touches="[]"),),
        "layers": (
            Layer(
                name="a.weight",
                spots=spots,
                orders=((0, packed([2, 0, 1, 3])),),
                options=((4, 0.0), (2, 0.25)),
            ),
        ),
        "axes": ((3, ()), (0, ((0, 1),))),
        "quantities": (Priced(key="macs", label="MACs", unit="MACs"),),
        "products": (((100,), (0, 1)),),
    }
    return Explorer(**{**values, **changes})


def test_orders_are_packed_as_narrow_as_they_fit():
    assert base64.b64decode(packed([1, 0])) == bytes([2, 1, 0, 0, 0])
    assert base64.b64decode(packed([65536])) == bytes([4, 0, 0, 1, 0])
    assert base64.b64decode(packed([])) == bytes([2])


def test_a_report_with_an_explorer_survives_json(report: Report):
    with_scan = report.model_copy(update={"explorer": small_explorer()})
    text = with_scan.to_json()
    assert Report.from_json(text) == with_scan
    assert sum('"explorer"' in line for line in text.splitlines()) == 1
    assert Report.from_json(report.to_json()).explorer is None


def test_a_metric_beyond_one_is_no_percentage():
    assert small_explorer().is_fraction
    assert not small_explorer(baseline=2.0).is_fraction


def test_a_network_that_does_not_work_has_no_explorer():
    with pytest.raises(ValidationError, match="greater than 0"):
        small_explorer(baseline=0.0)
