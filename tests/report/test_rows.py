import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flyweight.errors import FileError
from flyweight.report.rows import Curve, Quantity, Report, Row, Width

FINITE = st.floats(-1e100, 1e100)


def test_json_round_trip(report: Report) -> None:
    text = report.to_json()
    assert Report.from_json(text) == report
    assert Report.from_json(text).to_json() == text
    assert json.loads(text)["format"] == 1


@given(value=FINITE, label=st.text(min_size=1), environment=st.dictionaries(st.text(), st.text()))
def test_any_quantity_survives_json(value: float, label: str, environment: dict[str, str]) -> None:
    quantity = Quantity(label=label, value=value, unit="ms", method="m", environment=environment)
    assert Quantity.model_validate_json(quantity.model_dump_json()) == quantity


@pytest.mark.parametrize("found", [2, None, "1"])
def test_unknown_format_is_refused_in_one_line(report: Report, found: object) -> None:
    data = json.loads(report.to_json())
    data["format"] = found
    with pytest.raises(FileError, match=f"format {found!r}.*runs/a/report\\.json") as caught:
        Report.from_json(json.dumps(data), source="runs/a/report.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"format": 1}'])
def test_what_is_no_report_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FileError, match=r"here\.json") as caught:
        Report.from_json(text, source="here.json")
    assert "\n" not in str(caught.value)


def test_unknown_key_is_named(report: Report) -> None:
    data = json.loads(report.to_json())
    data["rows"][0]["quantities"]["macs"]["valeu"] = 1
    with pytest.raises(FileError, match=r"rows\.0\.quantities\.macs\.valeu: Extra inputs"):
        Report.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "change", [{"low": 1.0}, {"low": 3.0, "high": 4.0}, {"value": float("nan")}, {"method": ""}]
)
def test_quantity_refuses(change: dict[str, object]) -> None:
    values = {"label": "Latency", "value": 2.0, "unit": "ms", "method": "median", **change}
    with pytest.raises(ValidationError):
        Quantity.model_validate(values)


def test_curve_is_a_line() -> None:
    with pytest.raises(ValidationError, match="equally long, not 2 and 1"):
        Curve(name="loss", series="dense", x=(0, 1), y=(1,), unit="loss")
    with pytest.raises(ValidationError, match="x must ascend"):
        Curve(name="loss", series="dense", x=(1, 0), y=(1, 1), unit="loss")


def test_names_are_unique_and_units_agree(report: Report) -> None:
    values = report.model_dump()
    with pytest.raises(ValidationError, match="'dense' appears twice"):
        Report.model_validate({**values, "rows": [values["rows"][0]] * 2})
    width = Width(name="conv", before=2, after=1)
    with pytest.raises(ValidationError, match="'conv' appears twice"):
        Report.model_validate({**values, "widths": [width, width]})
    other = Quantity(label="MACs", value=1, unit="FLOPs", method="m")
    rows = [report.rows[0], Row(stage="pruned", quantities={"macs": other})]
    with pytest.raises(ValidationError, match="'macs' must have one unit"):
        Report.model_validate({**values, "rows": rows})


def test_a_row_may_lack_a_quantity(report: Report) -> None:
    shorter = report.model_copy(
        update={"rows": (report.rows[0], Row(stage="pruned", quantities={}))}
    )
    assert shorter.keys == ("voc_11point", "macs", "size_bytes", "latency_ms.1")
    assert shorter.quantities("macs")[1] is None
    assert shorter.stages == ("dense", "pruned")


def test_images_are_read_under_their_old_key_and_written_under_it(report: Report) -> None:
    values = json.loads(report.to_json())
    assert [image["path"] for image in values["pictures"]] == ["pictures/a.png", "pictures/b.jpg"]
    assert "images" not in values
    values["images"] = values.pop("pictures")
    assert Report.from_json(json.dumps(values)) == report


def test_the_interval_of_a_difference_must_rise():
    with pytest.raises(ValidationError, match="must rise"):
        Quantity(label="mAP", value=0.5, unit="fraction", method="m", difference=(0.1, -0.1))
