"""`flyweight report`: the report of a run folder."""

from pathlib import Path
from typing import Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import show
from flyweight.cli.options import ForeignScan, Json, Overrides
from flyweight.pipeline.preflight import require_paths

Folder = Annotated[Path, typer.Argument(help="Run folder: with a report.json or checkpoints.")]
ConfigOfReport = Annotated[
    str,
    typer.Option(
        "-c",
        "--config",
        help="Evaluate on the data of this config: adds intervals, classes and images.",
        metavar="CONFIG",
    ),
]


def report(
    folder: Folder,
    config: ConfigOfReport = "",
    opt: Overrides = None,
    foreign_scan: ForeignScan = False,
    json: Json = False,
) -> None:
    """Write and print the report of a run.

    A report that a chain wrote is rendered again. Of other folders one is made from their
    checkpoints, logs, exported files and measurements. If the folder has a scan of its dense
    network, in a file sens*.json, the report shows it. A scan of something else is named and left
    out, unless --foreign-scan is given.
    """
    settings = None
    if config:
        settings = pipeline.load_config(config, opt or ())[1]
        require_paths(settings)
    result = pipeline.report(folder, settings, foreign=foreign_scan, progress=True)
    if json:
        show(result.report.to_json())
        return
    show(heavy.result_table(result.report))
    show("wrote " + ", ".join(map(str, result.files)))
