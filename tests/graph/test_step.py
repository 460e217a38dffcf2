import numpy as np
import pytest

from flyweight.graph.identity import Field, Flow
from flyweight.graph.step import CountedAxis, Ledger, Step, drop_constant_axes, moved


def step(op="add", where="neck.join", shapes=((1, 4),), **arguments):
    return Step(op, where, arguments, shapes, Ledger())


def test_place_names_operation_and_module():
    assert step().place() == "add at 'neck.join'"
    assert step(where="").place() == "add in the model's forward"


def test_flows_come_in_order_from_lists_too():
    one, two, three = Flow((1,)), Flow((2,)), Flow((3,))
    assert step(tensors=[one, two], alpha=1, other=three).flows() == [one, two, three]


def test_an_argument_that_is_no_tensor_is_named():
    with pytest.raises(TypeError, match="add must have a tensor as 'other', received int"):
        step(other=3).flow("other")


def test_join_of_two_axes():
    this = step()
    left, right = this.identities.fresh(3), this.identities.fresh(3)
    assert this.join(left, right) is left
    assert this.identities.components().tolist() == [0, 1, 2, 0, 1, 2]
    assert this.identities.frozen == []


def test_join_with_a_fixed_axis_freezes_with_the_place():
    this = step()
    ids = this.identities.fresh(2)
    assert this.join(ids, None) is None
    assert this.join(None, ids) is None
    assert this.join(None, None) is None
    reasons = [why for _, why in this.identities.frozen]
    assert reasons == ["meets a tensor whose size is fixed: add at 'neck.join'"] * 2


def test_single_joins_the_other_axes_of_a_field():
    this = step()
    field = Field((1, 2), this.identities.fresh(6).reshape(2, 3))
    flow = Flow((1, 2, 3), (field,))
    assert this.single(flow, 0) is None
    assert this.single(flow, -1).tolist() == [0, 1, 2]
    assert this.identities.components()[field.ids].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_result_takes_the_shape_of_its_index():
    this = step(shapes=((1, 2), (3,)))
    assert this.result(index=1).shape == (3,)
    assert this.result().shape == (1, 2)


def test_count_notes_where():
    this = step(op="conv2d")
    this.count(9, (CountedAxis(4),), paddle=True)
    (counted,) = this.ledger.counted
    assert (counted.where, counted.op, counted.positions, counted.paddle) == (
        "neck.join",
        "conv2d",
        9,
        True,
    )


def test_drop_constant_axes():
    grid = np.repeat(np.arange(3)[:, None], 4, 1)
    kept = drop_constant_axes(Field((1, 2), grid))
    assert kept.axes == (1,)
    assert kept.ids.tolist() == [0, 1, 2]
    assert drop_constant_axes(Field((1,), np.zeros(4, np.int64))) is None
    both = Field((1, 2), np.arange(6).reshape(2, 3))
    assert drop_constant_axes(both).axes == (1, 2)


def test_moved_keeps_axes_rising_and_turns_the_identities_along():
    field = Field((1, 2), np.arange(6).reshape(2, 3))
    turned = moved(field, {1: 3, 2: 0})
    assert turned.axes == (0, 3)
    assert turned.ids.tolist() == [[0, 3], [1, 4], [2, 5]]
