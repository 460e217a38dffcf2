"""Report of a run folder, rendered again; light, because most folders need no network for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight import on_demand
from flyweight.config.scanning import SCANS
from flyweight.progress import Progress, progress_of
from flyweight.report.collect import JSON_NAME, read_report
from flyweight.report.quantization_results import RECORD_NAME, read_quantization
from flyweight.report.render import render_all
from flyweight.report.rows import Report

if TYPE_CHECKING:
    from flyweight.config.settings import Config

# The explorer needs the network, and with it torch.
_NOTE = "report.done.json"
_FROM_FOLDER = "flyweight.pipeline.folder_report:build_folder_report"
_EXPLORER = "flyweight.pipeline.explorer_inputs:with_explorer_of_folder"


@dataclass(frozen=True)
class Reported:
    """A report.

    Attributes:
        report: Its values.
        page: The HTML file.
        files: All files that were written.
    """

    report: Report
    page: Path
    files: tuple[Path, ...]


def report(
    folder: Path,
    config: "Config | None" = None,
    *,
    foreign: bool = False,
    progress: Progress | bool = False,
) -> Reported:
    """Render the report of a run folder, with the scan in the folder where there is one.

    The report of a chain is rendered again from `report.json`. Of other folders one is made from
    their checkpoints, logs, exported files and measurements.

    Args:
        folder: Of any run.
        config: Its data are evaluated and shown, with intervals, classes and images; None shows
            what the folder holds.
        foreign: Show the scan although it is of something else.
        progress: Receives messages and progress.

    Raises:
        FlyweightError: The folder has neither report nor checkpoint, or a file cannot be read or
            written.
    """
    if config is None and not _must_be_made(folder):
        found = read_report(folder)
    else:
        found = on_demand.load(_FROM_FOLDER)(folder, config, progress_of(progress))
    if any(folder.glob(SCANS)):
        reports = progress_of(progress)
        found = on_demand.load(_EXPLORER)(found, folder, config, foreign=foreign, progress=reports)
    return rendered(found, folder)


def _must_be_made(folder: Path) -> bool:
    """Return whether a folder has checkpoints and no report of them."""
    places = (folder, folder / "dense", folder / "pruned")
    found = [path for place in places for path in place.glob("*.safetensors")]
    report = folder / JSON_NAME
    if not report.is_file():
        return bool(found)
    if (folder / _NOTE).is_file():  # The chain that wrote the report makes it again itself.
        return False
    written = report.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > written for path in found)


def rendered(report: Report, folder: Path) -> Reported:
    """Write a report as JSON, Markdown and HTML, and return what was written.

    What `flyweight quantize` has left in the folder is a section of it.
    """
    found = read_quantization(folder / RECORD_NAME)
    report = report.model_copy(update={"quantization": found})
    files = tuple(render_all(report, folder))
    return Reported(report, files[-1], files)
