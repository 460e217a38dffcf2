"""Names of the files of a report, and reading of the report of a run folder."""

import os
from pathlib import Path

from flyweight.errors import FileError
from flyweight.report.rows import Report
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text

JSON_NAME, MARKDOWN_NAME, HTML_NAME = "report.json", "report.md", "report.html"


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Return the report in `folder`, which a run wrote as report.json.

    Raises:
        FileError: The file does not exist or cannot be read.
    """
    path = Path(folder) / JSON_NAME
    must = f"A run folder must hold a readable {JSON_NAME}."
    remedy = "Name the folder of a finished run, such as --output-dir of `flyweight demo`."
    with refusing(FileError, must, f"'{path}'", remedy):
        text = read_text(path)
    return Report.from_json(text, source=str(path))
