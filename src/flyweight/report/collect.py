"""From a run folder back to its report."""

import os
from pathlib import Path

from flyweight.errors import FileError
from flyweight.report.render import JSON_NAME
from flyweight.report.rows import Report


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Return the report that a run left in `folder` as report.json.

    Raises:
        FileError: There is none, or it cannot be read.
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
