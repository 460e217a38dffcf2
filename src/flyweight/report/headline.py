"""Headline of a report: the result in one sentence, and the quantities that it states."""

from flyweight.report.change import Change, compare
from flyweight.report.formatting import TIMES, common_scale, with_unit
from flyweight.report.rows import Quantity, Report
from flyweight.report.units import unit_of

_LEADING_UNITS = ("ms", "bytes", "fraction")


def highlights(report: Report) -> tuple[str, ...]:
    """Return the keys of the quantities that the headline states.

    They are the first latency, the first size and the first metric that the first and the last row
    have. If no latency was measured, MACs take its place.
    """
    first: dict[str, str] = {}
    for key in report.keys:
        ends = report.quantities(key)
        if ends[0] is not None and ends[-1] is not None:
            first.setdefault(ends[0].unit, key)
    if "ms" not in first and "MACs" in first:
        first["ms"] = first["MACs"]
    return tuple(first[unit] for unit in _LEADING_UNITS if unit in first)


def headline(report: Report) -> str:
    """Return one sentence that compares the first row with the last row.

    "Pruned YOLOv3-MobileNetV1 is 2.6x faster at 1 thread, 3.1x smaller, and loses 0.8 points of
    mAP." A report of one row states its values.
    """
    baseline, result = report.rows[0], report.rows[-1]
    subject = f"{result.stage[:1].upper()}{result.stage[1:]} {report.subject}"
    keys = highlights(report)
    if not keys:
        return f"{subject}: nothing was measured at every stage."
    if len(report.rows) == 1:
        return f"{subject}: {', '.join(_value(result.quantities[key]) for key in keys)}."
    clauses = []
    for key in keys:
        before, after = baseline.quantities[key], result.quantities[key]
        clauses.append(_clause(compare(before, after), after, baseline.stage))
    return f"{subject} {_sentence(clauses)}."


def _value(quantity: Quantity) -> str:
    value = f"{with_unit(quantity, common_scale([quantity]))}"
    return f"{value} at {quantity.detail}" if quantity.unit == "ms" and quantity.detail else value


def _clause(change: Change, after: Quantity, baseline: str) -> tuple[str, str]:
    """Return verb and complement."""
    if change.verdict == "not comparable":
        return "cannot be compared", f"in {after.label} ({change.reason})"
    if unit_of(after.unit).compared == "points":
        return _metric_clause(change, after, baseline)
    verb = "needs" if after.unit == "MACs" else "is"
    noun = " MACs" if after.unit == "MACs" else ""
    place = f" at {after.detail}" if after.unit == "ms" and after.detail else ""
    if change.amount is None or change.amount < 1.05:
        why = " (the intervals overlap)" if change.verdict == "no difference" else ""
        return verb, f"{unit_of(after.unit).same} as {baseline}{place}{why}"
    return verb, f"{_factor(change.amount)}{TIMES} {change.word}{noun}{place}"


def _metric_clause(change: Change, after: Quantity, baseline: str) -> tuple[str, str]:
    if change.amount is None:
        overlap = " within its interval" if change.verdict == "no difference" else ""
        return "keeps", f"the {after.label} of {baseline}{overlap}"
    if abs(change.amount) < 0.05:
        return "keeps", f"the {after.label} of {baseline}"
    verb = "gains" if change.amount > 0 else "loses"
    return verb, f"{abs(change.amount):.1f} points of {after.label}"


def _factor(amount: float) -> str:
    return f"{amount:.1f}" if amount < 9.95 else f"{amount:,.0f}"


def _sentence(clauses: list[tuple[str, str]]) -> str:
    """Join clauses; a verb that repeats the verb before it is left out."""
    parts = []
    verb = ""
    for own_verb, complement in clauses:
        parts.append(complement if own_verb == verb else f"{own_verb} {complement}")
        verb = own_verb
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"
