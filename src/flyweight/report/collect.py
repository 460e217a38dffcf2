"""Names of the files of a report, and reading of the report of a run folder."""

import os
from pathlib import Path

from flyweight.errors import FileError
from flyweight.report.rows import Report

JSON_NAME, MARKDOWN_NAME, HTML_NAME = "report.json", "report.md", "report.html"


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Return the report in `folder`, which a run wrote as report.json.

    Raises:
        FileError: The file does not exist or cannot be read.
    """
    path = Path(folder) / JSON_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise FileError(
            f"A run folder must hold a readable {JSON_NAME}. Received: {reason}. Where: {path}. "
            "Name the folder of a finished run, such as --output-dir of `flyweight demo`."
        ) from error
    return Report.from_json(text, source=str(path))
