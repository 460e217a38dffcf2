"""HTML page of one scan: the plan explorer and the curves."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import PlanError
from flyweight.files import write_text
from flyweight.graph.model_graph import ModelGraph
from flyweight.report import quantities
from flyweight.report.html import to_html
from flyweight.report.rows import Quantity, Report, Row
from flyweight.sensitivity.explorer_values import Cutting, explorer
from flyweight.sensitivity.measured_curves import MeasuredCurves


@dataclass(frozen=True)
class Subject:
    """The network that the page is about.

    Attributes:
        name: Its name.
        command: The command that writes the page again.
    """

    name: str = "network"
    command: str = "curves.write_page(path)"


def write_page(
    curves: MeasuredCurves,
    path: str | Path,
    graph: ModelGraph | None = None,
    *,
    cutting: Cutting | None = None,
    subject: Subject | None = None,
) -> None:
    """Write a page that shows the curves and makes plans of them, without network access.

    Args:
        curves: The measured curves.
        path: The file to write.
        graph: The graph of the network to cut, with its weights; by default the scanned one.
        cutting: How plans are made.
        subject: The network that the page is about.

    Raises:
        PlanError: No graph is known, or none of its layers was scanned.
        DataError: The metric before any cut is 0.
        FileError: The file cannot be written.
    """
    known = graph or curves.graph
    if known is None:
        raise PlanError(
            "A page must have a graph. Received curves read from a file. Give graph=trace(...)."
        )
    about = subject or Subject()
    report = Report(
        title=f"Sensitivity of {about.name}",
        subject=about.name,
        created=datetime.datetime.now(datetime.UTC),
        command=about.command,
        environment={},
        rows=(Row(stage="dense", quantities=_quantities(curves, known)),),
        explorer=explorer(curves, known, cutting),
    )
    write_text(path, to_html(report, Path(path).parent))


def _quantities(curves: MeasuredCurves, graph: ModelGraph) -> dict[str, Quantity]:
    cost = graph.cost()
    of_data = "over the data of the scan"
    value = curves.baseline
    metric = (
        quantities.metric(curves.metric, value, method=of_data)
        if value <= 1
        else Quantity(
            label=curves.metric, value=value, unit="score", method=of_data, better="higher"
        )
    )
    return {
        "metric": metric,
        "macs": quantities.macs(cost.macs, method="the traced input; 1 MAC = 1 multiply-add"),
        "parameters": quantities.parameters(cost.params, method="learnable values"),
        "size": Quantity(
            label="Size",
            value=cost.size_bytes,
            unit="bytes",
            method="parameters and buffers at their own precision",
        ),
    }
