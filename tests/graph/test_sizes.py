import numpy as np
import pytest

from flyweight.graph.cost import AxisSize
from flyweight.graph.identity import Field, Flow
from flyweight.graph.sizes import AxisSizes

# Twelve identities: components 0..3 are group "a", 4 and 5 are group "b", 6 belongs to none.
LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 6, 0, 1, 2, 3])
OWNER = np.array([0, 0, 0, 0, 1, 1, -1])


@pytest.fixture
def sizes():
    return AxisSizes(LABELS, OWNER, ["a", "b"])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 1, 2, 3], AxisSize(0, (("a", 1),))),
        ([0, 1, 2, 3, 8, 9, 10, 11], AxisSize(0, (("a", 2),))),
        ([4, 5, 0, 1, 2, 3, 6], AxisSize(1, (("a", 1), ("b", 1)))),
        ([6, 7], AxisSize(2)),
    ],
)
def test_positions_of_groups_are_shares(sizes, ids, expected):
    assert sizes.of(np.array(ids), len(ids)) == expected


def test_without_identities_a_size_is_fixed(sizes):
    assert sizes.of(None, 7) == AxisSize(7)
    assert sizes.along(Flow((7, 4), (Field((1,), np.arange(4)),)), 0) == AxisSize(7)


def test_of_a_box_only_the_free_axis_changes(sizes):
    box = Field((1, 2), np.array([[0, 1, 2, 3], [8, 9, 10, 11]]))
    flow = Flow((5, 2, 4), (box,))
    assert [sizes.along(flow, axis) for axis in range(3)] == [
        AxisSize(5),
        AxisSize(2),
        AxisSize(0, (("a", 1),)),
    ]
    assert sizes.along(flow, 2) is sizes.along(flow, 2)
