import pytest
from pydantic import ValidationError

from flyweight.report.class_results import ClassResult, ClassResults, Confusion


def test_every_class_has_a_value_per_stage():
    one = ClassResult(name="cat", count=3, values=(0.5,))
    with pytest.raises(ValidationError, match="one value per stage"):
        ClassResults(metric="AP", counted="objects", stages=("a", "b"), classes=(one,))


def test_a_confusion_matrix_is_square():
    with pytest.raises(ValidationError, match="a row and a column per class"):
        Confusion(stage="a", counted="images", labels=("x", "y"), counts=((1, 2),))


def test_they_are_part_of_a_report(report):
    again = type(report).from_json(report.to_json())
    assert again == report
    assert again.class_results.classes[1].values == (None, None)
