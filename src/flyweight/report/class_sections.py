"""Values of the page's section on classes: table, precision and recall, confusion matrices."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from flyweight.report.class_results import Confusion
from flyweight.report.formatting import ABSENT
from flyweight.report.line_charts import line_chart
from flyweight.report.rows import Report

MOST_CLASSES = 20
"""Confusion matrices of more classes are left out, because a page cannot show them."""


def class_values(report: Report) -> Mapping[str, Any] | None:
    """Return the values of the template `classes.html`; None without results by class."""
    found = report.class_results
    if found is None:
        return None
    order = {stage: index for index, stage in enumerate(report.stages)}
    curves = report.precision_recall
    colours = [order.get(curve.series, len(order)) % 8 for curve in curves]
    return {
        "results": found,
        "lines": [
            {"name": one.name, "count": f"{one.count:,}", "values": [*map(percent, one.values)]}
            for one in found.classes
        ],
        "chart": Markup(line_chart(curves, colours)) if curves else None,
        "legend": [
            {"series": curve.series, "colour": colour}
            for curve, colour in zip(curves, colours, strict=True)
        ],
        "confusions": [_matrix(one) for one in report.confusions],
    }


def percent(value: float | None) -> str:
    """Return a fraction as percent with one decimal; a dash where there is none.

    Example:
        >>> percent(0.8314), percent(None) == ABSENT
        ('83.1', True)
    """
    return ABSENT if value is None else f"{100 * value:.1f}"


def _matrix(confusion: Confusion) -> dict[str, Any]:
    lines = []
    for label, row in zip(confusion.labels, confusion.counts, strict=True):
        total = sum(row)
        shares = [count / total if total else 0.0 for count in row]
        cells = [
            {
                "text": f"{100 * share:.0f}" if share >= 0.005 else "",
                "strength": f"{100 * share:.0f}%",
                "title": f"{label}, predicted as {other}: {count:,} {confusion.counted}",
            }
            for other, share, count in zip(confusion.labels, shares, row, strict=True)
        ]
        lines.append({"name": label, "cells": cells})
    return {"stage": confusion.stage, "labels": confusion.labels, "lines": lines}
