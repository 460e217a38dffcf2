import json

import pytest

from flyweight.config.reading import load_config
from flyweight.errors import FileError
from flyweight.origin import Parent, note_parent
from flyweight.pipeline.distillation_outcomes import regained, with_teacher
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.report.class_results import ClassResult, ClassResults

CONFIG = load_config("demo_digits", ("width=0.1", "input_size=64"))[1]


def results(*rows):
    classes = tuple(ClassResult(name=name, count=1, values=values) for name, *values in rows)
    stages = ("dense", "pruned", "distilled")
    return ClassResults(metric="AP", counted="objects", stages=stages, classes=classes)


def test_the_classes_that_came_back_are_named_the_largest_gain_first():
    found = results(
        ("a", 0.9, 0.5, 0.6),
        ("b", 0.8, 0.4, 0.75),
        ("c", 0.5, 0.6, 0.7),  # The cut did not lower it.
        ("d", 0.5, 0.4, 0.3),
        ("e", None, 0.1, 0.2),
    )
    assert regained(found, before="pruned", after="distilled") == (
        "Classes that the cut lowered: 3; raised by distillation: 2 "
        "(b 80.0 -> 40.0 -> 75.0 %, a 90.0 -> 50.0 -> 60.0 %)."
    )
    unharmed = regained(results(("c", 0.5, 0.6, 0.7)), before="pruned", after="distilled")
    assert unharmed == "Classes that the cut lowered: 0; raised by distillation: 0."


@pytest.fixture
def student(tmp_path):
    """Save a student with these parents, and the numbers of its distillation beside it."""

    def save(dense, teacher, numbers):
        model = build_model(CONFIG)
        for role, digest in (("dense", dense), ("teacher", teacher)):
            note_parent(model, Parent(role, digest))
        path = tmp_path / "best_model.safetensors"
        Saver(CONFIG, tuple("0123456789"), "detect")(model, {}, path)
        (tmp_path / "distilled.json").write_text(numbers)
        return path

    return save


def test_a_teacher_of_another_kind_has_a_column(student):
    found = results(("a", 0.9, 0.5, 0.6), ("b", 0.8, 0.4, 0.75))
    one, two = "sha256:" + "0" * 64, "sha256:" + "1" * 64
    numbers = {"primary": "map_50", "teacher": {"map_50": 0.9, "ap/b": 0.95}}
    taught = with_teacher(found, student(one, two, json.dumps(numbers)))
    assert taught.stages == ("dense", "pruned", "distilled", "teacher")
    assert [row.values[-1] for row in taught.classes] == [None, 0.95]
    assert with_teacher(found, student(one, one, json.dumps(numbers))) is found
    # Average precision of COCO is none at IoU 0.5.
    other = {**numbers, "primary": "map"}
    assert with_teacher(found, student(one, two, json.dumps(other))) is found
    with pytest.raises(FileError, match="numbers of a distillation"):
        with_teacher(found, student(one, two, "{"))
