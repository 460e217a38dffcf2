"""`flyweight report`: the report of a run folder, rendered again."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import heavy
from flyweight.cli.options import Json

Folder = Annotated[Path, typer.Argument(help="Run folder that has a report.json.")]


def report(folder: Folder, json: Json = False) -> None:
    """Write and print a run's report again.

    If the folder has a scan of its dense network, in a file sens*.json, the report shows it.
    """
    heavy.report(folder, as_json=json)
