"""A report as three files that say the same: for machines, for terminals, for people."""

import os
from pathlib import Path

from flyweight import files
from flyweight.report.markdown import to_markdown
from flyweight.report.rows import Report

JSON_NAME, MARKDOWN_NAME, HTML_NAME = "report.json", "report.md", "report.html"


def render_all(report: Report, folder: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """Write report.json, report.md and report.html into `folder` and return their paths.

    Nothing is written unless all three can be made; each is written whole or not at all.

    Raises:
        FileError: A picture cannot be shown, or the folder cannot be written.
    """
    # Here, not above: the template engine loads only when a page is made.
    from flyweight.report.html import to_html

    home = Path(folder)
    texts = {
        JSON_NAME: report.to_json(),
        MARKDOWN_NAME: to_markdown(report),
        HTML_NAME: to_html(report, home),
    }
    for name, text in texts.items():
        files.write_text(home / name, text)
    return home / JSON_NAME, home / MARKDOWN_NAME, home / HTML_NAME
