"""Comparison of two quantities: a ratio, a difference in points, or no difference."""

from dataclasses import dataclass, replace
from typing import Literal

from flyweight.report.rows import Quantity
from flyweight.report.units import unit_of

Verdict = Literal["better", "worse", "same", "no difference", "not comparable"]


@dataclass(frozen=True)
class Change:
    """The change of a quantity from one stage to another.

    Attributes:
        verdict: "no difference" means that the intervals overlap, or that the interval of the
            difference contains 0; "same" that exact numbers agree.
        compared: Whether `amount` is a ratio or percentage points.
        amount: The ratio as a factor >= 1 in the direction of `verdict`, or after minus before in
            points; None if `verdict` is "same", "no difference" or "not comparable".
        low: Lower end of the interval of `amount`; None for exact numbers.
        high: Upper end of that interval.
        word: Adjective for the direction of a ratio: "faster", "larger".
        reason: Why two numbers cannot be compared; empty otherwise.
    """

    verdict: Verdict
    compared: Literal["ratio", "points"] = "ratio"
    amount: float | None = None
    low: float | None = None
    high: float | None = None
    word: str = ""
    reason: str = ""


def compare(before: Quantity, after: Quantity) -> Change:
    """Return the change from `before` to `after`.

    The interval of a change spans every value that the two intervals allow (interval arithmetic),
    which is wider than a bootstrap of the pairs but needs no other data. A number without an
    interval counts as exact. Overlapping intervals are "no difference". Where `after` has the
    interval of its difference from the first row, `before` must be that row's number: then the
    change is "no difference" if that interval contains 0.
    """
    reason = _why_not(before, after)
    if reason:
        return Change("not comparable", reason=reason)
    if before.low is None and after.low is None and before.value == after.value:
        return Change("same")
    if after.difference is not None and unit_of(before.unit).compared == "points":
        return _paired(before, after, after.difference)
    if _overlap(before, after):
        return Change("no difference")
    if unit_of(before.unit).compared == "points":
        return _difference(before, after)
    return _ratio(before, after)


def _why_not(before: Quantity, after: Quantity) -> str:
    if before.unit != after.unit:
        return f"{before.unit} and {after.unit} are different units"
    if before.method != after.method:
        return "measured by different methods"
    if before.environment != after.environment:
        return "measured in different environments"
    return ""


def _overlap(before: Quantity, after: Quantity) -> bool:
    if before.low is None and after.low is None:
        return False
    return _low(before) <= _high(after) and _low(after) <= _high(before)


def _paired(before: Quantity, after: Quantity, difference: tuple[float, float]) -> Change:
    low, high = (100 * end for end in difference)
    found = _difference(before, after)
    if low <= 0 <= high:
        return replace(found, verdict="no difference", amount=None, low=low, high=high)
    return replace(found, low=low, high=high)


def _difference(before: Quantity, after: Quantity) -> Change:
    rises = after.value > before.value
    measured = before.low is not None or after.low is not None
    return Change(
        verdict="better" if rises == (_better(before) == "higher") else "worse",
        compared="points",
        amount=100 * (after.value - before.value),
        low=100 * (_low(after) - _high(before)) if measured else None,
        high=100 * (_high(after) - _low(before)) if measured else None,
    )


def _ratio(before: Quantity, after: Quantity) -> Change:
    larger, smaller = sorted((before, after), key=lambda quantity: quantity.value, reverse=True)
    if _low(smaller) <= 0:
        return Change("not comparable", reason="a ratio needs values above zero")
    improved = (after is smaller) == (_better(before) == "lower")
    unit = unit_of(before.unit)
    measured = before.low is not None or after.low is not None
    return Change(
        verdict="better" if improved else "worse",
        amount=larger.value / smaller.value,
        low=_low(larger) / _high(smaller) if measured else None,
        high=_high(larger) / _low(smaller) if measured else None,
        word=unit.gain if improved else unit.loss,
    )


def _better(quantity: Quantity) -> str:
    return quantity.better or unit_of(quantity.unit).better


def _low(quantity: Quantity) -> float:
    return quantity.value if quantity.low is None else quantity.low


def _high(quantity: Quantity) -> float:
    return quantity.value if quantity.high is None else quantity.high
