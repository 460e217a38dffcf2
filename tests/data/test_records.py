from pathlib import Path

import numpy as np

from flyweight.data.records import BoxRecord, BoxSet, Problem, as_boxes


def _record(*, positions: bool) -> BoxRecord:
    return BoxRecord(
        path=Path("x.jpg"),
        height=10,
        width=20,
        boxes=as_boxes([(1, 2, 3, 4), (2, 3, 4, 5)]),
        labels=np.array([0, 1]),
        difficult=np.array([True, False]),
        crowd=np.array([False, False]),
        lines=(12, 34),
        annotation=Path("x.xml"),
        positions=positions,
    )


def test_problem_names_its_place():
    assert str(Problem(Path("a.xml"), 3, "bad.")) == "a.xml:3: bad."
    assert str(Problem(Path("a.jpg"), None, "bad.")) == "a.jpg: bad."


def test_record_names_the_place_of_a_box():
    assert (
        str(_record(positions=False).problem(1, "bad.", "empty_box")) == "x.xml:34: object 2: bad."
    )
    assert (
        str(_record(positions=True).problem(1, "bad.", "empty_box"))
        == "x.xml: annotations[34]: bad."
    )


def test_boxes_beyond_float32_become_infinite_without_a_warning():
    assert np.isinf(as_boxes([(1e300, 0, 1, 1)])[0, 0])
    assert as_boxes([(1, 2, 3, 4)]).dtype == np.float32


def test_without_difficult_flags():
    box_set = BoxSet("x", ("a", "b"), (_record(positions=False),))
    assert not box_set.without_difficult_flags().records[0].difficult.any()
    assert box_set.records[0].difficult.any()
    assert len(box_set) == 1
