import pytest

from flyweight.errors import DataError, PlanError
from flyweight.sensitivity.measured_curves import MeasuredCurves, Point, number_of


def curves(baseline=0.8, criterion="l1_norm"):
    points = (Point(0.1, 0.6), Point(0.2, 1.2, (1.1, 1.3)))
    return MeasuredCurves("map_50", baseline, {"a": points}, criterion)


def test_losses_are_shares_of_the_baseline():
    found = curves()
    assert found.losses("a") == pytest.approx({0.1: 0.25, 0.2: -0.5})
    assert found.all_losses() == {"a": found.losses("a")}
    with pytest.raises(DataError, match=r"above 0. Received map_50 0\."):
        curves(baseline=0.0).losses("a")


def test_rows_of_points_and_back():
    for point in curves().curves["a"]:
        assert Point.of(point.row()) == point
    with pytest.raises(ValueError, match="two or four numbers"):
        Point.of([0.1, 0.2, 0.3])
    for wrong in ("0.5", True, None):
        with pytest.raises(TypeError, match="must be a number"):
            number_of(wrong)


def test_a_criterion_that_looks_at_data_has_to_be_measured_again():
    assert curves().known_criterion() == "l1_norm"
    assert curves(criterion=max).known_criterion() is max
    with pytest.raises(PlanError, match="has to be measured again"):
        curves(criterion="taylor").known_criterion()
