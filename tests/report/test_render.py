import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.errors import FileError
from flyweight.report.render import render_all
from flyweight.report.rows import Report


def test_three_files_that_say_the_same(report: Report, run_folder: Path) -> None:
    paths = render_all(report, run_folder)
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    json_text, markdown, page = (path.read_text(encoding="utf-8") for path in paths)
    assert Report.from_json(json_text) == report
    assert markdown.startswith("# YOLOv3-MobileNetV1 on BCCD\n")
    assert page.startswith("<!doctype html>")


def test_all_or_nothing(report: Report, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        render_all(report, tmp_path / "empty")
    assert list(tmp_path.iterdir()) == []


def test_template_engine_loads_only_for_a_page() -> None:
    code = "import sys, flyweight.report.collect; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
