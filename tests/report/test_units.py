import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.report.units import UNITS, decimals_for, scale_for, unit_of


@pytest.mark.parametrize(
    ("unit", "values", "symbol"),
    [
        ("MACs", [6.1e9, 5e6], "G"),
        ("MACs", [999.0], ""),
        ("bytes", [1024.0], "KiB"),
        ("bytes", [2.0**30], "GiB"),
        ("bytes", [0.0], "B"),
        ("fraction", [0.5], "%"),
        ("volts", [3.0], "volts"),
    ],
)
def test_scale_follows_the_largest(unit: str, values: list[float], symbol: str) -> None:
    assert scale_for(unit, values).symbol == symbol


def test_scales_run_from_coarse_to_fine() -> None:
    for unit in UNITS.values():
        divisors = [scale.divisor for scale in unit.scales]
        assert divisors == sorted(divisors, reverse=True)


def test_unknown_unit_is_better_when_lower() -> None:
    assert unit_of("volts").better == "lower"


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_three_digits_are_three_digits(value: float) -> None:
    shown = f"{value:.{decimals_for(value)}f}"
    assert float(shown) == pytest.approx(value, rel=0.00501)
    if value < 99.9:
        assert len(shown.replace(".", "").lstrip("0")) == 3
