from pathlib import Path

import pytest

from flyweight.errors import FileError
from flyweight.report.collect import read_report
from flyweight.report.render import render_all
from flyweight.report.rows import Report


def test_a_run_folder_renders_again_to_the_same(report: Report, run_folder: Path) -> None:
    first = {path: path.read_bytes() for path in render_all(report, run_folder)}
    for name in ("report.md", "report.html"):
        (run_folder / name).unlink()
    found = read_report(run_folder)
    assert found == report
    assert {path: path.read_bytes() for path in render_all(found, run_folder)} == first


def test_a_folder_without_report_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"must hold a readable report\.json") as caught:
        read_report(tmp_path)
    assert str(tmp_path / "report.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="no UTF-8"):
        read_report(tmp_path)
