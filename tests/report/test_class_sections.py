from flyweight.report.class_sections import class_values
from flyweight.report.formatting import ABSENT


def test_values_of_the_section(report):
    found = class_values(report)
    assert found["lines"][0] == {"name": "red cell", "count": "1,200", "values": ["84.2", "83.4"]}
    assert found["lines"][1]["values"] == [ABSENT, ABSENT]
    first, empty = found["confusions"][0]["lines"]
    assert [cell["text"] for cell in first["cells"]] == ["90", "10"]
    assert [cell["text"] for cell in empty["cells"]] == ["", ""]
    assert found["legend"] == [{"series": "dense", "colour": 0}]
    assert "<svg" in found["chart"]


def test_no_results_no_section(report):
    assert class_values(report.model_copy(update={"class_results": None})) is None
