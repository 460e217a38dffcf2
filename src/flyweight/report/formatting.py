"""Formatting of numbers, quantities and changes as text."""

from collections.abc import Iterable

from flyweight.report.change import Change
from flyweight.report.rows import Quantity
from flyweight.report.units import Scale, decimals_for, scale_for, unit_of

TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
ABSENT = "\N{EN DASH}"


def common_scale(quantities: Iterable[Quantity | None]) -> Scale:
    """Return the common scale of the `quantities` in one line of a table."""
    present = [quantity for quantity in quantities if quantity is not None]
    return scale_for(present[0].unit, (quantity.value for quantity in present))


def head(quantity: Quantity, scale: Scale) -> str:
    """Return the head of a table line: "Latency, 1 thread (ms)"."""
    return f"{quantity.name} ({scale.symbol})" if scale.symbol else quantity.name


def number(value: float, unit: str, scale: Scale, like: float | None = None) -> str:
    """Return `value` in `scale` with three significant digits, percentages with one decimal.

    Args:
        value: Number in the plain `unit`.
        unit: Name of the unit.
        scale: Scale to show it in.
        like: Number whose decimals are used: the ends of an interval have those of its value.
    """
    shown = value / scale.divisor
    decimals = (
        1 if unit == "fraction" else decimals_for((value if like is None else like) / scale.divisor)
    )
    return f"{shown:,.{decimals}f}".replace("-", MINUS)


def cell(quantity: Quantity | None, scale: Scale) -> str:
    """Return a table cell without its unit: "84.9 [84.1, 86.0]"."""
    return (
        ABSENT
        if quantity is None
        else number(quantity.value, quantity.unit, scale) + interval(quantity, scale)
    )


def interval(quantity: Quantity, scale: Scale) -> str:
    """Return " [84.1, 86.0]", or nothing for an exact number."""
    if quantity.low is None or quantity.high is None:
        return ""
    ends = (
        number(end, quantity.unit, scale, like=quantity.value)
        for end in (quantity.low, quantity.high)
    )
    return f" [{', '.join(ends)}]"


def with_unit(quantity: Quantity, scale: Scale) -> str:
    """Return the number with its unit and without its interval: "6.14 GMACs", "93.9 MiB"."""
    shown = number(quantity.value, quantity.unit, scale)
    return f"{shown} {scale.symbol}{unit_of(quantity.unit).suffix}".rstrip()


def exact(quantity: Quantity) -> str:
    """Return all digits with the plain unit: "24,286,881 parameters"."""
    whole = quantity.value.is_integer()
    shown = f"{int(quantity.value):,}" if whole else f"{quantity.value:.10g}"
    return f"{shown} {quantity.unit}"


def short(change: Change) -> str:
    """Return a change without its interval: "2.60x faster", with a multiplication sign."""
    if change.amount is None:
        return change.verdict
    if change.compared == "points":
        return f"{signed(change.amount)} points"
    return f"{change.amount:,.{decimals_for(change.amount)}f}{TIMES} {change.word}"


def full(change: Change) -> str:
    """Return a change with its interval, "2.60x faster [2.51, 2.68]", or why there is none."""
    if change.verdict == "not comparable":
        return f"not comparable: {change.reason}"
    if change.verdict == "no difference" and change.low is not None and change.high is not None:
        return f"no difference [{signed(change.low)}, {signed(change.high)}]"
    if change.amount is None or change.low is None or change.high is None:
        return short(change)
    if change.compared == "points":
        return f"{short(change)} [{signed(change.low)}, {signed(change.high)}]"
    decimals = decimals_for(change.amount)
    return f"{short(change)} [{change.low:,.{decimals}f}, {change.high:,.{decimals}f}]"


def signed(points: float) -> str:
    """Return percentage points with their sign and one decimal, or two below 0.1."""
    decimals = 1 if abs(points) >= 0.1 else 2
    shown = f"{points:+.{decimals}f}"
    return shown.replace("-", MINUS)
