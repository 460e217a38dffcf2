import pytest
import torch

from flyweight.graph.cost import AxisSize
from flyweight.graph.predictions import (
    LeftPredictionError,
    Prediction,
    PredictionCheck,
    slice_window,
)
from flyweight.graph.program import Call, Value


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (2, None), (None, 4), (-3, None), (1, -1), (5, 2), (0, 99)]
)
def test_windows_are_pythons(start, end):
    first, last = slice_window(6, start, end)
    assert list(range(first, last)) == list(range(6))[start:end]


SIZE = AxisSize(1, (("a", 2),))  # One position that stays and two for every channel of group a.


def prediction(op="relu", where="m", window=()):
    return Prediction(op, where, results=((SIZE, AxisSize(3)),), sources=(), window=window)


def call(shape, op="relu", where="m"):
    source = Value(1, shape, torch.float32)
    return Call(
        torch.ops.aten.relu.default, op, where, (source,), {}, Value(2, shape, torch.float32)
    )


def test_sizes_that_can_change_and_their_places():
    one = prediction()
    assert list(one.sizes()) == [((0, 0), SIZE)]
    assert one.size(0, 1) == AxisSize(3)
    assert one.size(0, 2) is None
    assert one.size(9, 0) is None


def test_a_run_as_predicted_is_counted():
    check = PredictionCheck((prediction(), prediction()), {"a": 4}, values=False)
    check(call((9, 3)))
    check(call((9, 3), op="contiguous"))
    check(call((9, 3)))
    assert check.count == 2


@pytest.mark.parametrize(
    "found",
    [
        call((8, 3)),
        call((9, 4)),
        call((9,)),
        call((9, 3), op="sigmoid"),
        call((9, 3), where="other"),
    ],
)
def test_the_first_difference_ends_a_run(found):
    check = PredictionCheck((prediction(), prediction()), {"a": 4}, values=False)
    check(call((9, 3)))
    with pytest.raises(LeftPredictionError):
        check(found)
    assert check.count == 1


def test_more_calls_than_predicted_end_a_run():
    check = PredictionCheck((prediction(),), {"a": 4}, values=False)
    check(call((9, 3)))
    with pytest.raises(LeftPredictionError):
        check(call((9, 3)))


def test_on_values_another_course_ends_the_comparison_alone():
    check = PredictionCheck((prediction(), prediction()), {"a": 4}, values=True)
    check(call((9, 99)))  # A fixed size may depend on values.
    check(call((9, 3), op="sigmoid"))
    check(call((1, 1)))
    assert check.count == 1
