"""`flyweight report`: the report of a run folder, rendered again."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show
from flyweight.cli.options import ForeignScan, Json

Folder = Annotated[Path, typer.Argument(help="Run folder that has a report.json.")]


def report(folder: Folder, foreign_scan: ForeignScan = False, json: Json = False) -> None:
    """Write and print a run's report again.

    If the folder has a scan of its dense network, in a file sens*.json, the report shows it. A scan
    of something else is named and left out, unless --foreign-scan is given.
    """
    result = pipeline.report(folder, foreign=foreign_scan, progress=True)
    if json:
        show(result.report.to_json())
        return
    show(heavy.result_table(result.report))
    show("wrote " + ", ".join(map(str, result.files)))
