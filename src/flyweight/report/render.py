"""Files of a report with equal content: JSON, Markdown and one HTML page."""

import os
from pathlib import Path

from flyweight import files
from flyweight.on_demand import load
from flyweight.report.collect import HTML_NAME, JSON_NAME, MARKDOWN_NAME
from flyweight.report.markdown import to_markdown
from flyweight.report.rows import Report

_TO_HTML = "flyweight.report.html:to_html"  # Imported on use: only pages need the template engine.


def render_all(report: Report, folder: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """Write report.json, report.md and report.html into `folder` and return their paths.

    All three texts are made before the first file is written, and each file is replaced as a
    whole.

    Raises:
        FileError: An image cannot be read, or the folder cannot be written.
    """
    home = Path(folder)
    texts = {
        JSON_NAME: report.to_json(),
        MARKDOWN_NAME: to_markdown(report),
        HTML_NAME: load(_TO_HTML)(report, home),
    }
    for name, text in texts.items():
        files.write_text(home / name, text)
    return home / JSON_NAME, home / MARKDOWN_NAME, home / HTML_NAME
