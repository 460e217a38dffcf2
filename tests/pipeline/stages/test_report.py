from flyweight.pipeline.stages.report import FILES, REPORT


def test_a_report_depends_on_the_scans_in_the_folder(tmp_path):
    before = REPORT.surroundings(tmp_path)
    (tmp_path / "sens.json").write_text("1")
    (tmp_path / "other.json").write_text("1")
    after = REPORT.surroundings(tmp_path)
    assert (before, list(after["scans"])) == ({"scans": {}}, ["sens.json"])
    (tmp_path / "sens.json").write_text("2")
    assert REPORT.surroundings(tmp_path) != after


def test_a_finished_report_has_three_files():
    assert REPORT.makes(None) == FILES == ("report.json", "report.md", "report.html")
