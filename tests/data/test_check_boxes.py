from dataclasses import replace

import numpy as np
import pytest

from flyweight.data.check_boxes import box_problems
from flyweight.data.layouts.outlines import read_outline

LABELS = ("cat", "dog")


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([1, 1, float("nan"), 4], "infinite_box"),
        ([9, 1, 5, 4], "exchanged_corners"),
        ([1, 4, 5, 3], "exchanged_corners"),
        ([5, 1, 5, 4], "empty_box"),
        ([1, 1, 40, 4], "box_outside"),
        ([3, 4, 9, 9], "repeated_box"),
    ],
)
def test_the_kind_of_every_fault(tiny_set, box, kind):
    record = tiny_set(labels=("cat",), boxes=[[[3, 4, 9, 9], box]]).records[0]
    (problem,) = box_problems(record, (24, 32), LABELS)
    assert (problem.kind, problem.box, problem.stops) == (kind, 1, True)


def test_run_lengths_must_have_the_size_of_their_image(tiny_set):
    def outlined(*size):
        mask = {"size": list(size), "counts": [100, size[0] * size[1] - 100]}
        record = tiny_set(boxes=[[[3, 4, 9, 9]]]).records[0]
        return replace(record, outlines=(read_outline(mask),))

    assert list(box_problems(outlined(24, 32), (24, 32), LABELS)) == []
    (problem,) = box_problems(outlined(32, 24), (24, 32), LABELS)
    assert problem.kind == "run_lengths"
    assert "[24, 32]. Received [32, 24] (the sides are exchanged)" in problem.message
    (problem,) = box_problems(outlined(30, 30), (24, 32), LABELS)
    assert "exchanged" not in problem.message
    assert list(box_problems(outlined(30, 30), None, LABELS)) == []


def test_an_image_without_boxes_has_no_problems(tiny_set):
    record = tiny_set().records[0].only(np.zeros(1, dtype=bool))
    assert list(box_problems(record, (24, 32), LABELS)) == []
