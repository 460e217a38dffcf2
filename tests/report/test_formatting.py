import pytest

from flyweight.report.change import Change
from flyweight.report.formatting import (
    MINUS,
    TIMES,
    cell,
    common_scale,
    exact,
    full,
    head,
    short,
    signed,
    with_unit,
)
from flyweight.report.rows import Quantity


def quantity(value: float, unit: str, **others: object) -> Quantity:
    return Quantity.model_validate(
        {"label": "Q", "value": value, "unit": unit, "method": "m", **others}
    )


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (6_138_600_000, "MACs", "6.14 GMACs"),
        (24_609_981, "parameters", "24.6 M"),
        (98_439_924, "bytes", "93.9 MiB"),
        (84.93, "ms", "84.9 ms"),
        (1234.5, "ms", "1,234 ms"),
        (0.8424, "fraction", "84.2 %"),
        (1.0, "fraction", "100.0 %"),
        (-2.5, "volts", f"{MINUS}2.50 volts"),
    ],
)
def test_numbers_read_well(value: float, unit: str, shown: str) -> None:
    one = quantity(value, unit)
    assert with_unit(one, common_scale([one])) == shown


def test_a_line_shares_its_scale() -> None:
    large, small = quantity(4.9e9, "MACs"), quantity(6.6e8, "MACs")
    scale = common_scale([None, large, small])
    assert head(large, scale) == "Q (G)"
    assert (cell(large, scale), cell(small, scale)) == ("4.90", "0.660")
    assert cell(None, scale) == "\N{EN DASH}"


def test_interval_ends_take_the_decimals_of_their_middle() -> None:
    one = quantity(9.96, "ms", low=9.0, high=12.345)
    assert cell(one, common_scale([one])) == "9.96 [9.00, 12.35]"


def test_exact_shows_every_digit() -> None:
    assert exact(quantity(24_286_881, "parameters")) == "24,286,881 parameters"
    assert exact(quantity(0.8424, "fraction")) == "0.8424 fraction"


def test_changes_in_words() -> None:
    ratio = Change("better", amount=2.597, low=2.51, high=2.68, word="faster")
    assert short(ratio) == f"2.60{TIMES} faster"
    assert full(ratio) == f"2.60{TIMES} faster [2.51, 2.68]"
    points = Change("worse", compared="points", amount=-0.8, low=-2.0, high=0.4)
    assert full(points) == f"{MINUS}0.8 points [{MINUS}2.0, +0.4]"
    assert full(Change("no difference")) == "no difference"
    assert full(Change("not comparable", reason="why")) == "not comparable: why"


def test_small_points_keep_a_second_decimal() -> None:
    assert [signed(points) for points in (0.04, -12.34)] == ["+0.04", f"{MINUS}12.3"]


def test_no_difference_shows_its_interval_where_there_is_one():
    none = Change("no difference", compared="points", low=-0.24, high=0.31)
    assert full(none) == f"no difference [{MINUS}0.2, +0.3]"
    assert full(Change("no difference")) == "no difference"
