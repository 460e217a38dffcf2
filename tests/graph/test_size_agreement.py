import numpy as np

from flyweight.graph.identity import Identities
from flyweight.graph.size_agreement import Mark, disagreement, first_to_join, take_back

ALL = np.arange(20)


def joined(count, *pairs):
    identities = Identities()
    identities.fresh(count)
    for left, right in pairs:
        identities.join(np.array(left), np.array(right))
    return identities


def test_components_that_become_one_disagree():
    identities = joined(6, ([0], [1]))
    before = identities.components()
    identities.join(np.array([1, 4]), np.array([2, 4]))
    found = disagreement(before, identities.components(), ALL)
    assert sorted(found) == sorted({before[0], before[2]})


def test_joins_within_a_component_agree():
    identities = joined(4, ([0], [1]))
    before = identities.components()
    identities.join(np.array([1]), np.array([0]))
    fresh = identities.fresh(2)
    identities.join(fresh, np.array([2, 3]))
    assert len(disagreement(before, identities.components(), ALL)) == 0


def test_a_component_that_was_never_read_cannot_disagree():
    identities = joined(3)
    before = identities.components()
    identities.join(np.array([0]), np.array([2]))
    assert len(disagreement(before, identities.components(), before[:2])) == 0


def test_the_first_join_that_disagrees_is_found():
    identities = joined(6)
    before, marks = identities.components(), []
    for left, right in ((0, 0), (1, 1), (2, 3), (4, 5)):
        identities.join(np.array([left]), np.array([right]))
        marks.append(Mark.of(identities))
    assert first_to_join(identities, before, ALL, marks) == 2
    assert first_to_join(identities, before, ALL, marks[:2]) is None


def test_what_disagrees_is_taken_back_and_the_rest_stays():
    identities = joined(4)
    before, start = identities.components(), Mark.of(identities)
    fresh = identities.fresh(1)
    identities.join(np.array([0, 2]), np.array([1, int(fresh[0])]))
    apart = disagreement(before, identities.components(), ALL)
    assert take_back(identities, before, apart, start).tolist() == [0, 1]
    labels = identities.components()
    assert labels[0] != labels[1]
    assert labels[2] == labels[4]
