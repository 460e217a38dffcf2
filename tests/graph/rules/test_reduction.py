import pytest

from flyweight.graph.identity import Field, Flow


@pytest.mark.parametrize(
    ("keepdim", "shape", "axis"), [(True, (1, 4, 1, 1), 1), (False, (1, 4), 1)]
)
def test_a_mean_over_rows_passes_channels(bench, keepdim, shape, axis):
    x = bench.flow(1, 4, 3, 3, axes=[1])
    (out,) = bench.run("mean", shape, self=x, dim=[2, 3], keepdim=keepdim)
    assert out.field_on(axis).ids.tolist() == [0, 1, 2, 3]
    assert bench.mixed == []


@pytest.mark.parametrize("op", ["mean", "sum", "amax", "linalg_vector_norm", "var"])
def test_a_summary_over_channels_computes_across_them(bench, op):
    x = bench.flow(1, 4, 3, axes=[1])
    (out,) = bench.run(op, (1, 3), self=x, dim=[1])
    assert out.fields == ()
    assert bench.mixed == [0, 1, 2, 3]


def test_a_sum_over_a_weights_inputs_reads_them(bench):
    weight = bench.flow(4, 3, 3, 3, axes=[0, 1], parameter=True)
    bench.run("linalg_vector_norm", (4, 1, 1, 1), self=weight, dim=[1, 2, 3], keepdim=True)
    assert bench.mixed == []
    assert [ids.tolist() for ids in bench.ledger.consumed] == [[4, 5, 6]]


def test_a_summary_of_everything(bench):
    x = bench.flow(1, 4, axes=[1])
    (out,) = bench.run("mean", (), self=x)
    assert out.fields == ()
    assert bench.mixed == [0, 1, 2, 3]


def test_the_larger_of_two_tensors_is_elementwise(bench):
    x, y = bench.flow(1, 4, axes=[1]), bench.flow(1, 4, axes=[1])
    out = bench.run("max", (1, 4), self=x, other=y)
    assert out.field_on(1) is not None
    assert bench.together(x.fields[0].ids, y.fields[0].ids)
    assert bench.mixed == []


def test_softmax_computes_across_its_axis_alone(bench):
    x = bench.flow(1, 4, 3, axes=[1])
    assert bench.run("softmax", x.shape, self=x, dim=2).fields == x.fields
    assert bench.mixed == []
    bench.run("softmax", x.shape, self=x, dim=1)
    assert bench.mixed == [0, 1, 2, 3]


def test_batch_norm_takes_its_tensors_along(bench):
    x = bench.flow(1, 2, 3, 3, axes=[1])
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: bench.flow(2, parameter=True) for name in names}
    out = bench.run("batch_norm", x.shape, input=x, training=False, **tensors)
    assert out.fields == x.fields
    for tensor in tensors.values():
        assert bench.together(x.fields[0].ids, tensor.fields[0].ids)
    assert bench.mixed == []


def test_batch_norm_of_a_fixed_tensor_is_frozen(bench):
    weight = bench.flow(2, parameter=True)
    bench.run("batch_norm", (1, 2, 3, 3), input=Flow((1, 2, 3, 3)), weight=weight)
    assert bench.frozen == ["meets a tensor whose size is fixed"]


def test_layer_norm_mixes_and_takes_its_tensors_along(bench):
    x, weight = bench.flow(1, 5, 4, axes=[2]), bench.flow(4, parameter=True)
    out = bench.run("layer_norm", x.shape, input=x, normalized_shape=[4], weight=weight)
    assert out.fields == x.fields
    assert bench.together(x.fields[0].ids, weight.fields[0].ids)
    assert set(bench.mixed) == {0, 1, 2, 3}


def test_group_norm_keeps_the_same_places_in_every_block(bench):
    x = bench.flow(1, 6, 4, axes=[1])
    bench.run("group_norm", x.shape, input=x, num_groups=2)
    assert bench.together([0, 1, 2], [3, 4, 5])
    assert bench.mixed == [0, 1, 2, 3, 4, 5]


def test_group_norm_with_one_channel_a_block_freezes(bench):
    x = bench.flow(1, 4, 5, axes=[1])
    bench.run("group_norm", x.shape, input=x, num_groups=4)
    assert bench.frozen == ["is a normalisation group of its own"]


@pytest.mark.parametrize(("slopes", "joined"), [(4, 1), (1, 0)])
def test_prelu_has_a_slope_per_channel_or_one_for_all(bench, slopes, joined):
    x, weight = bench.flow(1, 4, 3, axes=[1]), bench.flow(slopes, parameter=True)
    assert bench.run("prelu", x.shape, self=x, weight=weight).fields == x.fields
    assert len(bench.ledger.identities.joined) == joined


@pytest.mark.parametrize(
    ("op", "shape", "axis", "passes"),
    [
        ("max_pool2d", (1, 4, 6, 6), 1, True),
        ("max_pool2d_with_indices", (1, 4, 6, 6), 1, True),
        ("upsample_nearest2d", (1, 4, 6, 6), 1, True),
        ("avg_pool1d", (1, 4, 6), 1, True),
        ("avg_pool2d", (4, 6, 6), 0, True),
        ("avg_pool1d", (1, 4, 6), 2, False),
        ("avg_pool2d", (4, 6, 6), 1, False),
        ("avg_pool3d", (1, 2, 4, 6, 6), 2, False),
    ],
)
def test_resampling_passes_channels_and_freezes_rows(bench, op, shape, axis, passes):
    x = bench.flow(*shape, axes=[axis])
    (out,) = bench.run(op, shape, self=x)
    assert bool(out.fields) is passes
    assert bench.frozen == ([] if passes else ["lies along rows or columns that are resampled"])


def test_a_field_that_loses_an_axis_is_joined_along_it(bench):
    ids = bench.ledger.identities.fresh(6).reshape(2, 3)
    x = Flow((1, 2, 3), (Field((1, 2), ids),))
    (out,) = bench.run("mean", (1, 2), self=x, dim=[2])
    assert out.fields[0].axes == (1,)
    labels = bench.ledger.identities.components()
    assert labels[ids].tolist() == [[0, 0, 0], [1, 1, 1]]
