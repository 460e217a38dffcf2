import numpy as np
import pytest

from flyweight.graph.identity import Field, Flow


def test_an_activation_passes_its_fields(bench):
    x = bench.flow(2, 4, 3, 3, axes=[1])
    assert bench.run("relu", x.shape, self=x).fields == x.fields


def test_a_sum_joins_equal_positions(bench):
    x, y = bench.flow(1, 4, 3, 3, axes=[1]), bench.flow(1, 4, 3, 3, axes=[1])
    out = bench.run("add", x.shape, self=x, other=y)
    assert [field.axes for field in out.fields] == [(1,)]
    assert bench.together(x.fields[0].ids, y.fields[0].ids)
    assert bench.frozen == []


@pytest.mark.parametrize("op", ["mul", "clamp", "_prelu_kernel", "where"])
def test_a_per_channel_value_is_broadcast(bench, op):
    x, scale = bench.flow(1, 4, 3, 3, axes=[1]), bench.flow(4, 1, 1, parameter=True)
    out = bench.run(op, x.shape, self=x, other=scale)
    assert [field.axes for field in out.fields] == [(1,)]
    assert bench.together(x.fields[0].ids, scale.fields[0].ids)


def test_a_number_joins_nothing(bench):
    x = bench.flow(1, 4, 3, 3, axes=[1])
    assert bench.run("add", x.shape, self=x, other=2).fields == x.fields
    assert bench.run("clamp", x.shape, self=x, min=0, max=6).fields == x.fields
    assert bench.ledger.identities.joined == []


def test_a_tensor_of_fixed_size_freezes(bench):
    x, constant = bench.flow(1, 4, 3, 3, axes=[1]), Flow((1, 4, 1, 1))
    out = bench.run("mul", x.shape, self=x, other=constant)
    assert out.fields == ()
    assert bench.frozen == ["meets a tensor whose size is fixed"]


def test_equal_fields_over_two_axes_are_joined_whole(bench):
    ids = bench.ledger.identities.fresh(12)
    x = Flow((1, 2, 3), (Field((1, 2), ids[:6].reshape(2, 3)),))
    y = Flow((1, 2, 3), (Field((1, 2), ids[6:].reshape(2, 3)),))
    out = bench.run("add", (1, 2, 3), self=x, other=y)
    assert out.fields[0].axes == (1, 2)
    assert bench.together(ids[:6], ids[6:])


def test_unlike_fields_meet_on_the_axis_they_share(bench):
    ids = bench.ledger.identities.fresh(6).reshape(2, 3)
    x = Flow((1, 2, 3), (Field((1, 2), ids),))
    bias = bench.flow(3)
    out = bench.run("add", (1, 2, 3), self=x, other=bias)
    (field,) = out.fields
    assert field.axes == (2,)
    labels = bench.ledger.identities.components()
    assert labels[ids].tolist() == np.broadcast_to(labels[bias.fields[0].ids], (2, 3)).tolist()


def test_a_field_that_meets_fixed_positions_keeps_its_other_axis(bench):
    ids = bench.ledger.identities.fresh(6).reshape(2, 3)
    x, fixed = Flow((1, 2, 3), (Field((1, 2), ids),)), Flow((1, 1, 3))
    out = bench.run("add", (1, 2, 3), self=x, other=fixed)
    assert [field.axes for field in out.fields] == [(1,)]
    assert bench.frozen == []


def test_what_is_made_of_different_values_has_a_fixed_size(bench):
    assert bench.run("arange", (4,), end=4).fields == ()


def test_what_has_one_value_everywhere_may_take_any_size(bench):
    x = bench.flow(1, 4, axes=[1])
    filled = bench.run("zeros", (1, 4), size=[1, 4])
    assert [field.axes for field in filled.fields] == [(1,)]
    out = bench.run("add", (1, 4), self=x, other=filled)
    assert bench.frozen == []
    assert bench.together(out.fields[0].ids, filled.fields[0].ids)


def test_what_has_one_value_meets_a_fixed_size(bench):
    filled = bench.run("ones", (4,), size=[4])
    bench.run("add", (4,), self=filled, other=Flow((4,)))
    assert bench.frozen == ["meets a tensor whose size is fixed"]
