from flyweight.report.text_table import columns, metrics_table


def test_columns_are_as_wide_as_their_widest_cell():
    text = columns([("group", "width"), ("a", "8"), ("longer", "128")])
    assert text.splitlines() == ["group   width", "a           8", "longer    128"]


def test_metrics_are_in_percent():
    assert metrics_table({"map": 0.5, "map_50": 1.0}) == "map      50.00 %\nmap_50  100.00 %"
    assert metrics_table({}) == ""
