from datetime import UTC, datetime

import pytest

from flyweight.errors import FileError
from flyweight.pipeline.rendered_report import rendered, report
from flyweight.report import quantities
from flyweight.report.rows import Report, Row


def test_a_report_is_rendered_again(tmp_path):
    rows = (Row(stage="dense", quantities={"m": quantities.metric("mAP", 0.8, method="all")}),)
    made = Report(
        title="t", subject="s", created=datetime.now(UTC), command="", environment={}, rows=rows
    )
    first = rendered(made, tmp_path)
    assert {path.name for path in first.files} == {"report.json", "report.md", "report.html"}
    first.page.unlink()
    again = report(tmp_path)
    assert again.report == made
    assert again.page.is_file()


def test_a_folder_without_a_report(tmp_path):
    with pytest.raises(FileError, match=r"report\.json"):
        report(tmp_path)
