"""Report of a run folder, rendered again; light, because most folders need no network for it."""

from dataclasses import dataclass
from pathlib import Path

from flyweight import on_demand
from flyweight.config.scanning import SCANS
from flyweight.progress import Progress, progress_of
from flyweight.report.collect import read_report
from flyweight.report.render import render_all
from flyweight.report.rows import Report

# The explorer needs the network, and with it torch.
_EXPLORER = "flyweight.pipeline.explorer_inputs:with_explorer"


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


def report(folder: Path, *, foreign: bool = False, progress: Progress | bool = False) -> Reported:
    """Render the report of a run folder again, with the scan in the folder where there is one.

    Args:
        folder: Has a `report.json`.
        foreign: Show the scan although it is of something else.
        progress: Receives messages.

    Raises:
        FlyweightError: The folder has no report, or it cannot be read or written.
    """
    found = read_report(folder)
    if any(folder.glob(SCANS)):
        say = progress_of(progress).note
        found = on_demand.load(_EXPLORER)(found, folder, foreign=foreign, say=say)
    return rendered(found, folder)


def rendered(report: Report, folder: Path) -> Reported:
    """Write a report as JSON, Markdown and HTML, and return what was written."""
    files = tuple(render_all(report, folder))
    return Reported(report, files[-1], files)
