import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flyweight.graph.identity import Field, Flow, Identities


def same_partition(one, other):
    """Whether two labellings put the same positions together."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def test_fresh_identities_never_repeat():
    ledger = Identities()
    first, second = ledger.fresh(3), ledger.fresh(2)
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [3, 4]


@given(st.data())
def test_components_are_those_of_scipy(data):
    count = data.draw(st.integers(1, 40))
    edges = data.draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=60)
    )
    ledger = Identities()
    ledger.fresh(count)
    for left, right in edges:
        ledger.join(np.array([left]), np.array([right]))
    graph = coo_matrix(
        (np.ones(len(edges)), ([a for a, _ in edges], [b for _, b in edges])), shape=(count, count)
    )
    number, expected = connected_components(graph, directed=False)
    found = ledger.components()
    assert same_partition(found, expected)
    assert sorted(set(found.tolist())) == list(range(number))


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_a_long_chain_is_one_component(order):
    ledger = Identities()
    ids = ledger.fresh(2000)
    pairs = np.stack([ids[:-1], ids[1:]])
    if order == "falling":
        pairs = pairs[:, ::-1]
    if order == "mixed":
        pairs = pairs[:, np.random.default_rng(0).permutation(1999)]
    ledger.join(pairs[0], pairs[1])
    assert set(ledger.components().tolist()) == {0}


def test_join_broadcasts():
    ledger = Identities()
    rows = ledger.fresh(6).reshape(2, 3)
    ledger.join(rows, rows[:1])
    assert ledger.components()[rows].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_nothing_joined_leaves_every_identity_alone():
    ledger = Identities()
    ledger.fresh(4)
    assert ledger.components().tolist() == [0, 1, 2, 3]
    assert Identities().components().tolist() == []


def test_collapse_leaves_one_axis_free():
    ledger = Identities()
    field = Field((1, 2), ledger.fresh(6).reshape(2, 3))
    rows = ledger.collapse(field, 1)
    assert rows.axes == (1,)
    found = ledger.components()[field.ids]
    assert found.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert rows.ids.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3), [[0, 1, 2], [0, 1, 2]]),
        ((3, 2), [[0, 0], [1, 1], [2, 2]]),
        # Of equals the last stays free: `view(batch, groups, -1)`.
        ((2, 2), [[0, 1], [0, 1]]),
    ],
)
def test_a_box_keeps_its_longest_axis_free(shape, expected):
    ledger = Identities()
    ids = ledger.fresh(int(np.prod(shape))).reshape(shape)
    ledger.box(ids)
    assert ledger.components()[ids].tolist() == expected


def test_a_box_that_varies_along_one_axis_is_left_alone():
    ledger = Identities()
    ids = ledger.fresh(6).reshape(2, 3)
    ledger.join(ids[:, :1], ids)
    ledger.box(ids)
    assert ledger.components()[ids].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_boxes_that_share_channels_settle_together():
    ledger = Identities()
    ids = ledger.fresh(12)
    ledger.box(ids.reshape(3, 4))
    ledger.box(ids.reshape(6, 2))
    found = ledger.components()
    for shape in ((3, 4), (6, 2)):
        grid = found[ids.reshape(shape)]
        varying = [a for a in (0, 1) if (grid != grid.take([0], a)).any()]
        assert len(varying) <= 1


def test_the_ledger_keeps_reasons_and_operations_in_words():
    ledger = Identities()
    ids = ledger.fresh(4).reshape(2, 2)
    ledger.freeze(ids, "is an output")
    ledger.mix(ids, "layer_norm at 'x'")
    assert [(found.tolist(), why) for found, why in ledger.frozen] == [
        ([0, 1, 2, 3], "is an output")
    ]
    assert [(found.tolist(), op) for found, op in ledger.mixed] == [
        ([0, 1, 2, 3], "layer_norm at 'x'")
    ]


def test_a_flow_finds_the_field_on_an_axis():
    field = Field((1, 2), np.arange(6).reshape(2, 3))
    flow = Flow((1, 2, 3, 4), (field,))
    assert flow.field_on(2) is field
    assert flow.field_on(3) is None


def test_identities_that_the_code_repeats_or_counts_are_known():
    ledger = Identities()
    plain, alike = ledger.fresh(2), ledger.fresh_alike(3)
    counted, other = ledger.fresh_counted(4), ledger.fresh_alike(2)
    assert ledger.are_alike(np.concatenate([plain, alike, counted, other])).tolist() == [
        *[False] * 2,
        *[True] * 3,
        *[False] * 4,
        *[True] * 2,
    ]
    assert ledger.positions_of(counted[::-1].reshape(2, 2)).tolist() == [[3, 2], [1, 0]]
    assert ledger.positions_of(np.concatenate([counted, plain])) is None
    assert not Identities().are_alike(np.arange(3)).any()


def test_a_field_can_be_collapsed_to_several_axes():
    ledger = Identities()
    ids = ledger.fresh(24).reshape(2, 3, 4)
    found = ledger.collapse(Field((1, 2, 4), ids), 1, 4)
    assert (found.axes, found.ids.shape) == ((1, 4), (2, 4))
    labels = ledger.components()[ids]
    assert (labels == labels[:, :1]).all()
    assert len(set(labels.ravel().tolist())) == 8
