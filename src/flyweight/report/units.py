"""Units of quantities: scale, rounding and direction of improvement, one row per unit."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Scale:
    """A scale of a unit: MiB for bytes, percent for fractions.

    Attributes:
        divisor: Size of one step of the scale, in the plain unit.
        symbol: Text after the number and in the head of a table: "MiB", "G".
    """

    divisor: float
    symbol: str


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        better: Direction of an improvement.
        gain: Adjective for an improvement: "faster".
        loss: Adjective for a deterioration: "slower".
        same: Phrase for equality in the headline: "as fast".
        scales: Scales, from coarse to fine.
        suffix: Text after the symbol of the scale in a sentence: "MACs" gives "6.14 GMACs".
        compared: Comparison by ratio, or by difference in percentage points.
    """

    better: Direction
    gain: str
    loss: str
    same: str
    scales: tuple[Scale, ...]
    suffix: str = ""
    compared: Literal["ratio", "points"] = "ratio"


_DECIMAL = (Scale(1e12, "T"), Scale(1e9, "G"), Scale(1e6, "M"), Scale(1e3, "k"), Scale(1.0, ""))
_BINARY = (Scale(2.0**30, "GiB"), Scale(2.0**20, "MiB"), Scale(2.0**10, "KiB"), Scale(1.0, "B"))

UNITS: dict[str, Unit] = {
    "MACs": Unit("lower", "fewer", "more", "as many MACs", _DECIMAL, "MACs"),
    "parameters": Unit("lower", "fewer", "more", "as many parameters", _DECIMAL),
    "bytes": Unit("lower", "smaller", "larger", "the same size", _BINARY),
    "ms": Unit("lower", "faster", "slower", "as fast", (Scale(1.0, "ms"),)),
    "pictures/s": Unit("higher", "faster", "slower", "as fast", (Scale(1.0, "pictures/s"),)),
    "fraction": Unit("higher", "gained", "lost", "as good", (Scale(0.01, "%"),), "", "points"),
}


def unit_of(name: str) -> Unit:
    """Return the unit `name`. An unknown unit is shown unchanged, and lower is better."""
    return UNITS.get(name) or Unit("lower", "less", "more", "the same", (Scale(1.0, name),))


def scale_for(name: str, values: Iterable[float]) -> Scale:
    """Return one scale for all `values` of unit `name`, chosen by the largest value.

    Example:
        >>> scale_for("bytes", [97_147_524, 31_549_568])
        Scale(divisor=1048576.0, symbol='MiB')
    """
    scales = unit_of(name).scales
    largest = max((abs(value) for value in values), default=0.0)
    return next((scale for scale in scales if largest >= scale.divisor), scales[-1])


def decimals_for(value: float, digits: int = 3) -> int:
    """Return the number of decimals that show `digits` significant digits, at most six.

    Example:
        >>> [decimals_for(value) for value in (6.1386, 93.88, 1863.0, 9.999, 0.0)]
        [2, 1, 0, 1, 0]
    """
    if value == 0:
        return 0
    rounded = float(f"{value:.{digits - 1}e}")
    return min(6, max(0, digits - 1 - math.floor(math.log10(abs(rounded)))))
