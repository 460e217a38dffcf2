from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.rules.conftest import Around, Bench, cut, reasons
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.identity import Field, Flow


def ids_of(flow, axis=1):
    return flow.field_on(axis).ids.tolist()


def test_flatten_deals_identities_out_in_row_major_order(bench):
    x = bench.flow(2, 3, 2, 2, axes=[1])
    out = bench.run("flatten", (2, 12), self=x)
    assert ids_of(out) == [0] * 4 + [1] * 4 + [2] * 4


def test_unflatten_of_a_flattened_axis_gives_the_channels_back(bench):
    x = bench.flow(2, 3, 2, 2, axes=[1])
    flat = bench.run("flatten", (2, 12), self=x)
    out = bench.run("view", (2, 3, 4), self=flat)
    assert [field.axes for field in out.fields] == [(1,)]
    assert ids_of(out) == [0, 1, 2]


def test_a_split_axis_is_a_field_over_both_and_a_box(bench):
    x = bench.flow(2, 6, 5, axes=[1])
    out = bench.run("view", (2, 2, 3, 5), self=x)
    (field,) = out.fields
    assert (field.axes, field.ids.tolist()) == ((1, 2), [[0, 1, 2], [3, 4, 5]])
    assert len(bench.ledger.identities.boxes) == 1


def test_a_shuffle(bench):
    x = bench.flow(2, 6, 5, axes=[1])
    out = bench.run("view", (2, 2, 3, 5), self=x)
    out = bench.run("transpose", (2, 3, 2, 5), self=out, dim0=1, dim1=2)
    out = bench.run("reshape", (2, 6, 5), self=out)
    assert ids_of(out) == [0, 3, 1, 4, 2, 5]


def test_two_fields_that_are_flattened_into_one_axis(bench):
    x = bench.flow(2, 3, 4, axes=[1, 2])
    bench.run("flatten", (2, 12), self=x)
    assert bench.frozen == ["is flattened together with other channels"]


def test_axes_of_size_one_come_and_go(bench):
    x = bench.flow(2, 3, 1, 1, axes=[1])
    out = bench.run("squeeze", (2, 3), self=x)
    out = bench.run("unsqueeze", (2, 1, 3), self=out)
    assert ids_of(out, 2) == [0, 1, 2]


@pytest.mark.parametrize(
    ("op", "arguments", "shape", "axis"),
    [
        ("permute", {"dims": [0, 2, 3, 1]}, (2, 5, 6, 4), 3),
        ("transpose", {"dim0": 1, "dim1": -1}, (2, 6, 5, 4), 3),
        ("swapaxes", {"axis0": 0, "axis1": 1}, (4, 2, 5, 6), 0),
        ("movedim", {"source": 1, "destination": -1}, (2, 5, 6, 4), 3),
        ("moveaxis", {"source": [1, 2], "destination": [0, 1]}, (4, 5, 2, 6), 0),
        ("mT", {}, (2, 4, 6, 5), 1),
    ],
)
def test_permutations(bench, op, arguments, shape, axis):
    x = bench.flow(2, 4, 5, 6, axes=[1])
    assert ids_of(bench.run(op, shape, self=x, **arguments), axis) == [0, 1, 2, 3]


def test_concat_appends_and_freezes_the_fixed_part_alone(bench):
    x, y, fixed = bench.flow(1, 2, 4, axes=[1]), bench.flow(1, 3, 4, axes=[1]), Flow((1, 2, 4))
    out = bench.run("cat", (1, 7, 4), tensors=[x, fixed, y], dim=1)
    assert ids_of(out) == [0, 1, 5, 6, 2, 3, 4]
    assert bench.frozen_ids == [5, 6]


def test_concat_along_another_axis_joins(bench):
    x, y = bench.flow(1, 3, 4, axes=[1]), bench.flow(1, 3, 5, axes=[1])
    out = bench.run("cat", (1, 3, 9), tensors=[x, y], dim=-1)
    assert [field.axes for field in out.fields] == [(1,)]
    assert bench.together(x.fields[0].ids, y.fields[0].ids)


def test_concat_of_fixed_parts_stays_fixed(bench):
    assert bench.run("cat", (1, 4), tensors=[Flow((1, 2)), Flow((1, 2))], dim=1).fields == ()
    assert bench.frozen == []


def test_stack_joins_its_parts(bench):
    x, y = bench.flow(1, 3, axes=[1]), bench.flow(1, 3, axes=[1])
    out = bench.run("stack", (2, 1, 3), tensors=[x, y], dim=0)
    assert ids_of(out, 2) == [0, 1, 2]
    assert bench.together(x.fields[0].ids, y.fields[0].ids)


def test_chunk_joins_its_parts(bench):
    x = bench.flow(1, 6, 4, axes=[1])
    left, right = bench.run("chunk", (1, 3, 4), (1, 3, 4), self=x, chunks=2, dim=1)
    assert (ids_of(left), ids_of(right)) == ([0, 1, 2], [3, 4, 5])
    assert bench.together(np.arange(3), np.arange(3, 6))


def test_unequal_chunks_freeze(bench):
    x = bench.flow(1, 5, axes=[1])
    bench.run("chunk", (1, 3), (1, 2), self=x, chunks=2, dim=1)
    assert bench.frozen == ["is cut into chunks of different sizes"]


def test_chunks_along_another_axis_pass(bench):
    x = bench.flow(1, 5, 4, axes=[1])
    parts = bench.run("chunk", (1, 5, 2), (1, 5, 2), self=x, chunks=2, dim=2)
    assert [ids_of(part) for part in parts] == [[0, 1, 2, 3, 4]] * 2
    assert bench.frozen == []


@pytest.mark.parametrize(
    ("start", "end", "step", "kept", "frozen"),
    [
        (0, 9223372036854775807, 1, [0, 1, 2, 3, 4, 5], []),
        (0, 4, 1, [0, 1, 2, 3], []),
        (2, 9223372036854775807, 1, [2, 3, 4, 5], []),
        (1, 3, 1, [1, 2], []),
        (-2, 9223372036854775807, 1, [4, 5], []),
        (0, 6, 2, [0, 2, 4], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_slices_freeze_only_what_is_read_in_strides(bench, start, end, step, kept, frozen):
    x = bench.flow(1, 6, axes=[1])
    arguments = {"dim": 1, "start": start, "end": end, "step": step}
    out = bench.run("slice", (1, len(kept)), self=x, **arguments)
    assert ids_of(out) == kept
    assert bench.frozen_ids == frozen


def test_a_slice_of_rows_passes_channels(bench):
    x = bench.flow(1, 3, 6, axes=[1])
    out = bench.run("slice", (1, 3, 2), self=x, dim=2, start=0, end=2, step=1)
    assert ids_of(out) == [0, 1, 2]
    assert bench.frozen == []


def test_one_position_of_a_split_axis_leaves_the_other_axis_free(bench):
    ids = bench.ledger.identities.fresh(6).reshape(3, 2)
    x = Flow((1, 3, 2), (Field((1, 2), ids),))
    parts = bench.run("unbind", (1, 2), (1, 2), (1, 2), self=x, dim=1)
    assert [part.fields[0].axes for part in parts] == [(1,)] * 3
    assert bench.together(ids[0], ids[1])
    assert bench.frozen == []


def test_select_drops_its_axis(bench):
    x = bench.flow(3, 1, 4, axes=[2])
    out = bench.run("select", (1, 4), self=x, dim=0, index=1)
    assert ids_of(out, 1) == [0, 1, 2, 3]


def test_flip_and_roll_are_permutations(bench):
    x = bench.flow(1, 5, axes=[1])
    assert ids_of(bench.run("flip", (1, 5), self=x, dims=[1])) == [4, 3, 2, 1, 0]
    assert bench.frozen == []
    assert ids_of(bench.run("roll", (1, 5), self=x, shifts=[2], dims=[1])) == [3, 4, 0, 1, 2]
    assert bench.frozen_ids == [3, 4]


def test_a_roll_of_rows_passes_channels(bench):
    x = bench.flow(1, 5, 4, axes=[1])
    assert ids_of(bench.run("roll", (1, 5, 4), self=x, shifts=[1], dims=[2])) == [0, 1, 2, 3, 4]
    assert bench.frozen == []


def test_expand_adds_axes_in_front(bench):
    x = bench.flow(4, 1, axes=[0])
    assert ids_of(bench.run("expand", (2, 4, 3), self=x, size=[2, 4, 3])) == [0, 1, 2, 3]


def test_repeat_tiles(bench):
    x = bench.flow(2, 1, axes=[0])
    out = bench.run("repeat", (1, 4, 3), self=x, repeats=[1, 2, 3])
    assert ids_of(out) == [0, 1, 0, 1]


def test_padded_rows_pass_and_padded_channels_are_frozen(bench):
    x = bench.flow(1, 2, 4, axes=[1])
    assert ids_of(bench.run("pad", (1, 2, 6), self=x, pad=[1, 1])) == [0, 1]
    assert bench.frozen == []
    out = bench.run("constant_pad_nd", (1, 5, 4), self=x, pad=[0, 0, 1, 2])
    assert ids_of(out) == [2, 0, 1, 3, 4]
    assert bench.frozen_ids == [2, 3, 4]


@pytest.mark.parametrize("arguments", [{"mode": "reflect", "pad": [1, 1]}, {"pad": [-1, 1]}])
def test_channels_padded_from_their_own_values_freeze(bench, arguments):
    x = bench.flow(1, 4, axes=[1])
    size = 4 + sum(arguments["pad"])
    bench.run("pad", (1, size + (size == 4)), self=x, **arguments)
    assert bench.frozen == ["is padded from its own values"]


def test_a_stored_permutation_is_followed_and_goes_along(bench):
    x, stored = bench.flow(1, 3, axes=[1]), bench.flow(3, parameter=True)
    order = replace(stored, order=np.array([2, 0, 1]))
    out = bench.run("index_select", (1, 3), self=x, dim=1, index=order)
    assert ids_of(out) == [2, 0, 1]
    again = bench.run("index", (1, 3), self=x, indices=[None, order])
    assert ids_of(again) == [2, 0, 1]
    assert bench.frozen == []
    assert bench.together(np.array([2, 0, 1]), np.array([3, 4, 5]))
    assert [ids.tolist() for ids in bench.ledger.orders] == [[3, 4, 5]] * 2


def test_other_lookups_freeze(bench):
    x, stored = bench.flow(1, 3, axes=[1]), bench.flow(2, parameter=True)
    bench.run("index_select", (1, 2), self=x, dim=1, index=stored)
    assert bench.frozen_ids == [0, 1, 2]


def filtered(x, weight, **options):
    return functional.conv2d(x, weight, padding=1, groups=x.shape[1], **options)


SOBEL = [[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]
ONE_KERNEL = {
    "expand": lambda m, x: filtered(x, m.kernel.expand(x.shape[1], -1, -1, -1)),
    "expand to sizes": lambda m, x: filtered(x, m.kernel.expand(x.shape[1], 1, 3, 3)),
    "expand by a number": lambda m, x: filtered(x, m.kernel.expand(m.width, 1, 3, 3)),
    "repeat": lambda m, x: filtered(x, m.kernel.repeat(x.shape[1], 1, 1, 1)),
    "tile": lambda m, x: filtered(x, m.kernel.tile((x.shape[1], 1, 1, 1))),
    "repeat_interleave": lambda m, x: filtered(x, m.kernel.repeat_interleave(x.shape[1], 0)),
    "concatenate": lambda m, x: filtered(x, torch.cat([m.kernel] * x.shape[1])),
    "made": lambda m, x: filtered(x, x.new_tensor(SOBEL).expand(x.shape[1], 1, 3, 3)),
    "product": lambda m, x: filtered(
        x, (m.kernel * m.kernel.transpose(2, 3)).expand(x.shape[1], 1, 3, 3)
    ),
    "transposed": lambda m, x: functional.conv_transpose2d(
        x, m.kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1]
    ),
}


@pytest.mark.parametrize("kind", ONE_KERNEL)
def test_one_kernel_for_every_channel(kind):
    cut(Around(ONE_KERNEL[kind], kernel=torch.randn(1, 1, 3, 3)))


def test_four_wavelets_for_every_channel():
    def transform(model, x):
        weight = model.wavelets.repeat(x.shape[1], 1, 1, 1)
        return functional.conv2d(x, weight, stride=2, groups=x.shape[1])

    cut(Around(transform, channels=64, wavelets=torch.randn(4, 1, 2, 2)))


def test_four_wavelets_for_every_block_of_four_channels():
    def inverse(model, x):
        blocks = x.shape[1] // 4
        weight = model.wavelets.repeat(blocks, 1, 1, 1)
        return functional.conv_transpose2d(x, weight, stride=2, groups=blocks)

    cut(Around(inverse, channels=4, wavelets=torch.randn(4, 1, 2, 2)))


def test_a_kernel_that_is_repeated_over_inputs_has_no_place_for_zeros():
    def pooled(model, x):
        return functional.conv2d(x, model.kernel.expand(16, x.shape[1], 3, 3), padding=1)

    model = Around(pooled, kernel=torch.randn(1, 1, 3, 3))
    groups = trace(model, (torch.rand(1, 3, 8, 8),)).groups
    assert groups["second.weight"].mixes == ("conv2d in the model's forward",)


def test_one_value_is_expanded_over_channels():
    cut(
        Around(
            lambda m, x: x * m.gate(x).sigmoid().expand(-1, x.shape[1], -1, -1),
            gate=nn.Conv2d(16, 1, 1),
        )
    )
    cut(Around(lambda m, x: x * m.factor.expand(x.shape), factor=torch.rand(1, 1, 1, 1)))


def test_vectors_of_unit_length_are_mixed_not_frozen():
    model = Around(lambda m, x: functional.normalize(x, dim=1))
    group = trace(model, (torch.rand(1, 3, 8, 8),)).groups["second.weight"]
    assert group.reason is None
    assert group.mixes == ("linalg_vector_norm in the model's forward",)


def test_an_expanded_size_that_the_code_writes_by_hand_freezes():
    model = Around(
        lambda m, x: filtered(x, m.kernel.expand(16, 1, 3, 3)), kernel=torch.ones(1, 1, 3, 3)
    )
    graph = trace(model, (torch.rand(1, 3, 8, 8),))
    assert reasons(graph) == {
        "has a size that the model's code writes by hand: expand in the model's forward"
    }


def shuffled(x, blocks, order, channels):
    n, _, h, w = x.shape
    return x.view(n, *blocks, h, w).permute(order).reshape(n, channels, 2 * h, 2 * w)


SHUFFLES = {
    "quarter": lambda m, x: shuffled(
        x, (x.shape[1] // 4, 2, 2), (0, 1, 4, 2, 5, 3), x.shape[1] // 4
    ),
    "factor": lambda m, x: shuffled(
        x,
        (x.shape[1] // m.factor**2, m.factor, m.factor),
        (0, 1, 4, 2, 5, 3),
        x.shape[1] // m.factor**2,
    ),
    "product": lambda m, x: shuffled(
        x,
        (x.shape[1] // (m.factor * m.factor), m.factor, m.factor),
        (0, 1, 4, 2, 5, 3),
        x.shape[1] // (m.factor * m.factor),
    ),
    "blocks first": lambda m, x: shuffled(
        x, (2, 2, x.shape[1] // 4), (0, 3, 4, 1, 5, 2), x.shape[1] // 4
    ),
    "inferred": lambda m, x: shuffled(x, (2, 2, -1), (0, 3, 4, 1, 5, 2), -1),
}


@pytest.mark.parametrize("kind", SHUFFLES)
def test_a_pixel_shuffle_by_hand(kind):
    cut(Around(SHUFFLES[kind], channels=4, factor=2))


def test_a_pixel_shuffle_by_hand_of_channels_in_the_last_place():
    def shuffle(model, x):
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)

    cut(Around(shuffle, channels=4))


@pytest.mark.parametrize("order", [(0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4)])
def test_a_pixel_unshuffle_by_hand(order):
    def unshuffle(model, x):
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(order)
        return x.reshape(n, 4 * c, h // 2, w // 2)

    cut(Around(unshuffle, channels=64))


def test_heads_that_share_keys_are_repeated_by_hand():
    def attention(model, x):
        tokens = x.flatten(2).transpose(1, 2)
        n, length, _ = tokens.shape
        query, key, value = (
            layer(tokens).view(n, length, -1, 4).transpose(1, 2)
            for layer in (model.query, model.key, model.value)
        )
        key, value = (one.repeat_interleave(2, 1) for one in (key, value))
        found = functional.scaled_dot_product_attention(query, key, value)
        return model.out(found.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)

    layers = {"query": 16, "key": 8, "value": 8}
    parts = {name: nn.Linear(16, size) for name, size in layers.items()}
    graph, _, _ = cut(Around(attention, out=nn.Linear(16, 16), **parts))
    assert graph.groups["query.weight"].size == 2
    assert {m.tensor for m in graph.groups["query.weight"].members} >= {"key.weight", "out.weight"}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_a_reshape_carries_every_identity_to_where_torch_puts_its_values(shape, data):
    """Where fields stay whole, the identity at a position is that of the value at it."""
    bench = Bench()
    axis = data.draw(st.integers(0, len(shape) - 1))
    ids = bench.ledger.identities.fresh(shape[axis])
    flow = Flow(tuple(shape), (Field((axis,), ids),) if shape[axis] > 1 else ())
    sizes = [size for size in shape if size > 1] or [1]
    cutting = data.draw(st.integers(0, len(sizes)))
    target = [int(np.prod(sizes[:cutting])), int(np.prod(sizes[cutting:]))]
    out = bench.run("reshape", tuple(target), self=flow)
    spread = np.broadcast_to(
        np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape
    )
    expected = torch.from_numpy(spread.copy()).reshape(target).numpy()
    labels = bench.ledger.identities.components()
    for found in out.fields:
        rest = tuple(a for a in range(2) if a not in found.axes)
        whole = np.expand_dims(found.ids, rest)
        assert (labels[np.broadcast_to(whole, target)] == labels[ids[expected]]).all()
