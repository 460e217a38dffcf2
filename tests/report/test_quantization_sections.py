from xml.etree import ElementTree as ET

from tests.report.test_quantization_results import result

from flyweight.report.quantization_sections import (
    comparison,
    loss_chart,
    quantization_values,
    step_cells,
)


def test_the_section_has_both_files_the_steps_and_the_layers():
    values = quantization_values(result())
    assert values["summary"] == "2 of 3 layers run on integers in ONNX Runtime."
    assert values["rows"] == [
        ("top1", "85.00 %", "84.00 %", "-1.00 points"),
        ("file", "8.00 MiB", "2.00 MiB", "4.00\N{MULTIPLICATION SIGN} smaller"),
    ]
    assert values["steps"] == [("calibration", "85.00 %", "84.00 %", "-1.00")]
    assert [one["name"] for one in values["costly"]] == ["head.linear", "stem.conv2d"]
    assert [one.name for one in values["floats"]] == ["up.conv_transpose2d"]
    assert quantization_values(None) is None


def test_without_numbers_there_are_no_rows_and_no_chart():
    bare = result(metrics={}, steps=(), layers=result().layers[1:2])
    assert [row[0] for row in comparison(bare)] == ["file"]
    values = quantization_values(bare)
    assert values["drawing"] is None
    assert values["steps"] == []
    assert step_cells(result(), 0)[0] == "calibration"


def test_bars_are_as_tall_as_the_costs():
    drawn = ET.fromstring(loss_chart(result().layers))
    bars = [bar for bar in drawn.iter("rect") if bar.get("class") in ("before", "after")]
    assert [bar.get("class") for bar in bars] == ["after", "before", "after"]
    assert float(bars[2].get("height")) / float(bars[0].get("height")) > 15
    titles = [one.text for one in drawn.iter("title")]
    assert titles[1] == "up.conv_transpose2d: float: no kernel"
    assert titles[2] == "head.linear: costs 2 %"
    assert loss_chart(result().layers[1:2]).startswith("<svg")
