import pytest
from tests.graph.rules.conftest import Around, cut
from torch import nn
from torch.nn import functional

from flyweight.graph.identity import Field, Flow


def convolve(bench, x, weight, groups=1, op="conv2d", shape=(1, 8, 4, 4), **more):
    places = {"stride": 1, "padding": 0, "dilation": 1}
    return bench.run(op, shape, input=x, weight=weight, groups=groups, **places, **more)


def reads(bench):
    return [ids.tolist() for ids in bench.ledger.consumed]


def makes(bench):
    return [ids.tolist() for ids in bench.ledger.produced]


def total(bench):
    (op,) = bench.ledger.counted
    product = op.positions
    for axis in op.axes:
        product *= axis.size
    return product


def test_convolution_reads_and_makes(bench):
    x, bias = bench.flow(1, 3, 4, 4, axes=[1]), bench.flow(8, parameter=True)
    weight = bench.flow(8, 3, 3, 3, axes=[0, 1], parameter=True)
    out = convolve(bench, x, weight, bias=bias)
    made, read = weight.fields[0].ids, weight.fields[1].ids
    assert out.field_on(1).ids.tolist() == made.tolist()
    assert (reads(bench), makes(bench)) == ([read.tolist()], [made.tolist()])
    assert bench.together(x.fields[0].ids, read)
    assert bench.together(made, bias.fields[0].ids)
    assert total(bench) == 16 * 8 * 27


def test_convolution_of_a_picture_freezes_what_reads_it(bench):
    weight = bench.flow(8, 3, 3, 3, axes=[0, 1], parameter=True)
    convolve(bench, Flow((1, 3, 4, 4)), weight)
    assert bench.frozen_ids == weight.fields[1].ids.tolist()


def test_channels_folded_into_the_batch_pass(bench):
    x, weight = bench.flow(5, 3, 4, 4, axes=[0]), bench.flow(8, 3, 1, 1, parameter=True)
    out = convolve(bench, x, weight, shape=(5, 8, 4, 4))
    assert [field.axes for field in out.fields] == [(0,), (1,)]
    assert total(bench) == 5 * 16 * 24


def test_channels_along_rows_freeze(bench):
    x, weight = bench.flow(1, 1, 6, axes=[2]), bench.flow(8, 1, 3, axes=[0], parameter=True)
    convolve(bench, x, weight, op="conv1d", shape=(1, 8, 4))
    assert bench.frozen == ["lies along rows or columns that are convolved"]


def test_depthwise_convolution_passes_channels_on(bench):
    x, weight = bench.flow(1, 4, 4, 4, axes=[1]), bench.flow(8, 1, 3, 3, axes=[0], parameter=True)
    out = convolve(bench, x, weight, groups=4)
    assert (reads(bench), makes(bench)) == ([], [])
    made = out.field_on(1).ids.reshape(4, 2)
    assert bench.together(x.fields[0].ids, made[:, 0])
    assert bench.together(made[:, 0], made[:, 1])


def test_depthwise_convolution_of_a_picture_freezes(bench):
    weight = bench.flow(6, 1, 3, 3, axes=[0], parameter=True)
    convolve(bench, Flow((1, 3, 4, 4)), weight, groups=3, shape=(1, 6, 4, 4))
    assert bench.frozen == ["meets a tensor whose size is fixed"]


def test_grouped_convolution_keeps_the_same_places_in_every_group(bench):
    x = bench.flow(1, 6, 4, 4, axes=[1])
    weight = bench.flow(8, 3, 1, 1, axes=[0, 1], parameter=True)
    out = convolve(bench, x, weight, groups=2)
    assert bench.together([0, 1, 2], [3, 4, 5])
    made = out.field_on(1).ids
    assert bench.together(made[:4], made[4:])


def test_one_output_a_group_freezes(bench):
    x = bench.flow(1, 6, 4, 4, axes=[1])
    weight = bench.flow(2, 3, 1, 1, axes=[0, 1], parameter=True)
    convolve(bench, x, weight, groups=2, shape=(1, 2, 4, 4))
    assert bench.frozen == ["is the only output of its group"]


def test_a_filter_that_is_computed_from_the_picture_is_not_exact(bench):
    x, weight = bench.flow(1, 3, 4, 4, axes=[1]), bench.flow(8, 3, 3, 3, axes=[0, 1])
    convolve(bench, x, weight)
    assert bench.mixed == weight.fields[1].ids.tolist()
    assert reads(bench) == []


@pytest.mark.parametrize(
    ("groups", "width", "made"), [(1, 5, [9, 10, 11, 12, 13]), (2, 2, [8, 9, 8, 9])]
)
def test_transposed_convolution(bench, groups, width, made):
    x = bench.flow(1, 4, 3, 3, axes=[1])
    weight = bench.flow(4, width, 2, 2, axes=[0, 1], parameter=True)
    shape = (1, width * groups, 6, 6)
    out = convolve(bench, x, weight, groups, op="conv_transpose2d", shape=shape)
    found = out.field_on(1).ids
    assert (found - found.min()).tolist() == [i - min(made) for i in made]
    assert reads(bench) == [weight.fields[0].ids.tolist()]
    assert total(bench) == 9 * 4 * width * 4


def test_transposed_depthwise_convolution(bench):
    x = bench.flow(1, 4, 3, 3, axes=[1])
    weight = bench.flow(4, 1, 2, 2, axes=[0], parameter=True)
    out = convolve(bench, x, weight, 4, op="conv_transpose2d", shape=(1, 4, 6, 6))
    assert bench.together(out.field_on(1).ids, weight.fields[0].ids)
    assert makes(bench) == []


def test_deformable_convolution_freezes_what_steers_it(bench):
    x, offset = bench.flow(1, 4, 3, 3, axes=[1]), bench.flow(1, 18, 3, 3, axes=[1])
    weight = bench.flow(8, 4, 3, 3, axes=[0, 1], parameter=True)
    arguments = {"weight": weight, "offset": offset, "mask": Flow((1, 9, 3, 3))}
    bench.run("deform_conv2d", (1, 8, 3, 3), input=x, n_offset_grps=1, **arguments)
    assert bench.frozen == ["steers a deformable convolution"]
    assert bench.frozen_ids == offset.fields[0].ids.tolist()
    assert not bench.ledger.counted[0].paddle


def test_linear_passes_what_lies_on_other_axes(bench):
    x, weight = bench.flow(1, 5, 3, axes=[1, 2]), bench.flow(4, 3, parameter=True)
    out = bench.run("linear", (1, 5, 4), input=x, weight=weight)
    assert [field.axes for field in out.fields] == [(1,), (2,)]
    assert total(bench) == 5 * 12
    assert {axis.ids is not None for axis in bench.ledger.counted[0].axes} == {True, False}


def test_a_product_with_a_parameter_reads_and_makes(bench):
    x, weight = bench.flow(2, 5, 3, axes=[2]), bench.flow(3, 4, parameter=True)
    out = bench.run("matmul", (2, 5, 4), self=x, other=weight)
    assert out.field_on(2).ids.tolist() == weight.fields[1].ids.tolist()
    assert (reads(bench), makes(bench)) == (
        [weight.fields[0].ids.tolist()],
        [weight.fields[1].ids.tolist()],
    )
    assert bench.mixed == []
    assert total(bench) == 2 * 5 * 3 * 4


def test_a_product_over_channels_without_a_weight_is_not_exact(bench):
    x, y = bench.flow(2, 5, 3, axes=[2]), bench.flow(2, 3, 5, axes=[1])
    bench.run("bmm", (2, 5, 5), self=x, mat2=y)
    assert bench.mixed == [0, 1, 2, 3, 4, 5]
    assert bench.together(x.fields[0].ids, y.fields[0].ids)


def test_batch_axes_of_a_product_are_joined(bench):
    x, y = bench.flow(4, 5, 3, axes=[0]), bench.flow(4, 3, 5, axes=[0])
    out = bench.run("matmul", (4, 5, 5), self=x, other=y)
    assert [field.axes for field in out.fields] == [(0,)]
    assert bench.together(x.fields[0].ids, y.fields[0].ids)


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [((3,), (3,), ()), ((5, 3), (3,), (5,)), ((3,), (3, 4), (4,)), ((2, 5, 3), (3, 4), (2, 5, 4))],
)
def test_products_of_every_rank_count_alike(bench, left, right, out):
    bench.run("matmul", out, self=Flow(left), other=Flow(right))
    expected = 3
    for size in out:
        expected *= size
    assert total(bench) == expected


def test_einsum_is_the_product_it_spells(bench):
    x, weight = bench.flow(2, 5, 3, axes=[2]), bench.flow(3, 4, parameter=True)
    out = bench.run("einsum", (2, 4, 5), equation="bnc, cd -> bdn", tensors=[x, weight])
    assert out.field_on(1).ids.tolist() == weight.fields[1].ids.tolist()
    assert makes(bench) == [weight.fields[1].ids.tolist()]


@pytest.mark.parametrize("equation", ["...c->...", "cc->c", "c"])
def test_other_einsums_freeze(bench, equation):
    x = bench.flow(3, 3, axes=[1])
    bench.run("einsum", (3,), equation=equation, tensors=[x])
    assert bench.frozen == ["enters an einsum that is not followed"]


def heads(bench, count=2, size=3):
    ids = bench.ledger.identities.fresh(count * size).reshape(count, size)
    return Flow((1, count, 5, size), (Field((1, 3), ids),)), ids


def test_attention_heads_leave_whole(bench):
    (query, q), (key, k), (value, v) = heads(bench), heads(bench), heads(bench)
    out = bench.run("scaled_dot_product_attention", query.shape, query=query, key=key, value=value)
    labels = bench.ledger.identities.components()
    assert out.field_on(1) is not None
    for ids in (q, k, v):
        assert labels[ids].tolist() == labels[q].tolist()
        assert (labels[ids] == labels[ids][:, :1]).all()
    assert len(set(labels[q][:, 0].tolist())) == 2
    assert bench.mixed == []


def test_a_single_head_passes_its_values_and_mixes_its_keys(bench):
    query, key, value = (bench.flow(1, 1, 5, 3, axes=[3]) for _ in range(3))
    out = bench.run("scaled_dot_product_attention", query.shape, query=query, key=key, value=value)
    assert out.field_on(3).ids.tolist() == value.fields[0].ids.tolist()
    assert bench.mixed == [0, 1, 2, 3, 4, 5]


def test_attention_with_fewer_key_heads_is_not_covered(bench):
    query, key = Flow((1, 4, 5, 3)), Flow((1, 2, 5, 3))
    with pytest.raises(ValueError, match="one key and value head per query head"):
        bench.run("scaled_dot_product_attention", (1, 4, 5, 3), query=query, key=key, value=key)


def test_an_embedding_makes_columns_and_keeps_rows(bench):
    weight = bench.flow(10, 4, parameter=True)
    out = bench.run("embedding", (2, 7, 4), weight=weight, indices=Flow((2, 7)))
    assert out.field_on(2).ids.tolist() == weight.fields[1].ids.tolist()
    assert bench.frozen_ids == weight.fields[0].ids.tolist()


def attended(gqa):
    def attention(model, x):
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = (
            layer(tokens).view(len(x), 64, -1, 4).transpose(1, 2)
            for layer in (model.query, model.key, model.value)
        )
        found = functional.scaled_dot_product_attention(query, key, value, enable_gqa=gqa)
        return model.out(found.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)

    return attention


def test_query_heads_leave_with_the_key_head_that_they_share():
    parts = {name: nn.Linear(16, size) for name, size in (("query", 24), ("key", 8), ("value", 8))}
    graph, _, small = cut(Around(attended(gqa=True), out=nn.Linear(24, 16), **parts))
    assert graph.groups["query.weight"].size == 2
    assert (small.query.out_features, small.key.out_features, small.out.in_features) == (12, 4, 12)


def test_a_single_key_head_for_all_query_heads_stays(bench):
    (query, q), (key, k) = heads(bench, 4, 3), heads(bench, 1, 3)
    key = Flow((1, 1, 5, 3), (Field((3,), k.ravel()),))
    out = bench.run("scaled_dot_product_attention", query.shape, query=query, key=key, value=key)
    assert out.field_on(1).ids.tolist() == q[:, 0].tolist()


def test_a_weight_that_is_repeated_by_the_code_is_no_place_for_zeros(bench):
    x = bench.flow(1, 3, 4, 4, axes=[1])
    made, read = (bench.ledger.identities.fresh_alike(size) for size in (8, 3))
    weight = Flow((8, 3, 3, 3), (Field((0,), made), Field((1,), read)), parameter=True)
    convolve(bench, x, weight)
    assert bench.mixed == read.tolist()
    assert reads(bench) == []


def test_a_product_of_weights_makes_no_channels(bench):
    left, right = bench.flow(6, 2, parameter=True), bench.flow(2, 5, parameter=True)
    out = bench.run("matmul", (6, 5), self=left, other=right)
    assert [found.ids.tolist() for found in out.fields] == [
        left.fields[0].ids.tolist(),
        right.fields[1].ids.tolist(),
    ]
    assert makes(bench) == []


def test_bags_of_rows_make_columns(bench):
    weight = bench.flow(10, 4, parameter=True)
    out, *rest = bench.run(
        "embedding_bag", (2, 4), (6,), (2,), (2,), weight=weight, indices=Flow((6,))
    )
    assert out.field_on(1).ids.tolist() == weight.fields[1].ids.tolist()
    assert [flow.fields for flow in rest] == [(), (), ()]
    assert bench.frozen_ids == weight.fields[0].ids.tolist()
