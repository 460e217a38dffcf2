import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.report import quantities
from flyweight.report.change import Change, compare
from flyweight.report.rows import Quantity

POSITIVE = st.floats(min_value=1e-3, max_value=1e6)
SHARES = st.floats(min_value=0, max_value=1)


def quantity(value: float, unit: str = "ms", **others: object) -> Quantity:
    return Quantity.model_validate(
        {"label": "Q", "value": value, "unit": unit, "method": "m", **others}
    )


@st.composite
def timings(draw: st.DrawFn, unit: str = "ms") -> Quantity:
    low, value, high = sorted(draw(st.lists(POSITIVE, min_size=3, max_size=3)))
    return quantity(value, unit, low=low, high=high)


@st.composite
def apart(draw: st.DrawFn, unit: str = "ms") -> tuple[Quantity, Quantity]:
    """Draw two timings whose intervals do not overlap, in either order."""
    ends = sorted(draw(st.lists(POSITIVE, min_size=6, max_size=6, unique=True)))
    pair = [quantity(value, unit, low=low, high=high) for low, value, high in (ends[:3], ends[3:])]
    first, second = draw(st.permutations(pair))
    return first, second


def within(timing: Quantity, share: float) -> float:
    assert timing.low is not None
    assert timing.high is not None
    return min(timing.high, timing.low + share * (timing.high - timing.low))


@given(apart(), SHARES, SHARES)
def test_interval_holds_every_ratio_the_inputs_allow(
    stages: tuple[Quantity, Quantity], first: float, second: float
) -> None:
    before, after = stages
    change = compare(before, after)
    assert change.amount is not None
    assert change.low is not None
    assert change.high is not None
    ratio = within(before, first) / within(after, second)
    factor = ratio if change.verdict == "better" else 1 / ratio
    assert change.low * (1 - 1e-9) <= factor <= change.high * (1 + 1e-9)
    assert 1 <= change.low * (1 + 1e-9) <= change.amount * (1 + 1e-9)


@given(timings(), timings())
def test_no_difference_exactly_where_the_intervals_overlap(
    before: Quantity, after: Quantity
) -> None:
    assert before.low is not None
    assert after.low is not None
    assert before.high is not None
    assert after.high is not None
    apart = before.high < after.low or after.high < before.low
    assert (compare(before, after).verdict == "no difference") == (not apart)


@given(timings(), timings())
def test_swapping_the_stages_swaps_the_verdict_only(before: Quantity, after: Quantity) -> None:
    there, back = compare(before, after), compare(after, before)
    assert (there.amount, there.low, there.high) == (back.amount, back.low, back.high)
    opposite = {"better": "worse", "worse": "better", "no difference": "no difference"}
    assert back.verdict == opposite[there.verdict]


@given(apart("fraction"), SHARES, SHARES)
def test_points_hold_every_difference_the_inputs_allow(
    stages: tuple[Quantity, Quantity], first: float, second: float
) -> None:
    before, after = stages
    change = compare(before, after)
    assert change.low is not None
    assert change.high is not None
    points = 100 * (within(after, second) - within(before, first))
    slack = 1e-9 * max(1.0, abs(change.low), abs(change.high))
    assert change.low - slack <= points <= change.high + slack
    assert (change.verdict == "better") == (after.value > before.value)


def test_exact_numbers() -> None:
    fewer = compare(quantity(600, "MACs"), quantity(200, "MACs"))
    assert fewer == Change("better", amount=3.0, word="fewer")
    assert compare(quantity(1, "bytes"), quantity(2, "bytes")).word == "larger"
    assert compare(quantity(7, "bytes"), quantity(7, "bytes")) == Change("same")
    assert compare(quantity(50, "pictures/s"), quantity(100, "pictures/s")).word == "faster"


def test_points_of_an_exact_metric() -> None:
    change = compare(quantity(0.5, "fraction"), quantity(0.25, "fraction"))
    assert change == Change("worse", compared="points", amount=-25.0)
    error_rate = {"unit": "fraction", "better": "lower"}
    assert compare(quantity(0.5, **error_rate), quantity(0.25, **error_rate)).verdict == "better"


def test_an_exact_number_within_the_other_interval_is_no_difference() -> None:
    assert compare(quantity(5, low=4, high=6), quantity(5.5)).verdict == "no difference"
    assert compare(quantity(5, low=4, high=6), quantity(3)).verdict == "better"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"method": "mean"}, "measured by different methods"),
        ({"environment": {"threads": "2"}}, "measured in different environments"),
        ({"unit": "s"}, "ms and s are different units"),
        ({"value": 0.0}, "a ratio needs values above zero"),
    ],
)
def test_what_differs_in_kind_is_not_compared(other: dict[str, object], reason: str) -> None:
    after = Quantity.model_validate(
        {"label": "Q", "value": 1.0, "unit": "ms", "method": "m", **other}
    )
    assert compare(quantity(2), after) == Change("not comparable", reason=reason)


def test_a_resampled_difference_decides_where_there_is_one():
    def metric(value, difference=None):
        made = quantities.metric("mAP", value, method="IoU 0.5")
        return made.model_copy(update={"difference": difference})

    gained = compare(metric(0.90), metric(0.91, (0.002, 0.02)))
    assert (gained.verdict, gained.compared) == ("better", "points")
    assert (gained.amount, gained.low, gained.high) == pytest.approx((1.0, 0.2, 2.0))
    lost = compare(metric(0.90), metric(0.80, (-0.15, -0.05)))
    assert (lost.verdict, lost.amount) == ("worse", pytest.approx(-10))
    none = compare(metric(0.90), metric(0.91, (-0.002, 0.02)))
    assert (none.verdict, none.amount) == ("no difference", None)
    assert (none.low, none.high) == pytest.approx((-0.2, 2.0))
