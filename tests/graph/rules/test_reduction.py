import pytest
import torch
from tests.graph.rules.conftest import Around, cut, reasons
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.identity import Field, Flow
from flyweight.pruning import PruningPlan


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
    """Of a tensor whose size is fixed; of others the channels pass, see the next test."""
    x, weight = Flow((1, 4, 5)), bench.flow(4, parameter=True)
    bench.run("group_norm", x.shape, input=x, num_groups=4, weight=weight)
    assert bench.frozen == ["meets a tensor whose size is fixed"]


def test_group_norm_with_one_channel_a_block_passes_channels(bench):
    x, weight = bench.flow(1, 4, 5, axes=[1]), bench.flow(4, parameter=True)
    out = bench.run("group_norm", x.shape, input=x, num_groups=4, weight=weight)
    assert out.field_on(1).ids.tolist() == [0, 1, 2, 3]
    assert bench.together(x.fields[0].ids, weight.fields[0].ids)
    assert (bench.frozen, bench.mixed) == ([], [])


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.norm(x),
        lambda m, x: functional.group_norm(x, x.shape[1]),
        lambda m, x: functional.group_norm(x, m.width),
    ],
)
def test_a_normalisation_of_every_channel_counts_those_that_stay(function):
    _, made, small = cut(Around(function, norm=nn.GroupNorm(16, 16)))
    if "norm.weight" in made.removed():
        assert (small.norm.num_groups, small.norm.num_channels) == (8, 8)
        assert "norm.num_groups" in made.numbers
        again = PruningPlan.from_json(made.to_json())
        assert again.numbers == made.numbers


def test_a_number_of_groups_that_stands_in_the_code_freezes():
    model = Around(lambda m, x: functional.group_norm(x, 16))
    assert reasons(trace(model, (torch.rand(1, 3, 8, 8),))) == {
        "has a size that the model's code writes by hand: group_norm in the model's forward"
    }


def pooled(kind):
    def there_and_back(model, x):
        flat = {1: x.flatten(2), 2: x, 3: x[:, :, None]}[kind]
        size = (2,) if kind == 1 else (1, 2, 2)[-kind:]
        down = getattr(functional, f"max_pool{kind}d")(flat, size, return_indices=True)
        return getattr(functional, f"max_unpool{kind}d")(*down, size).reshape(x.shape)

    return there_and_back


PASSING = {
    **{f"max_unpool{kind}d": pooled(kind) for kind in (1, 2, 3)},
    "modules": lambda m, x: m.up(*m.down(x)),
    "adaptive_max_pool3d": lambda m, x: functional.adaptive_max_pool3d(x[:, :, None], (1, 4, 4))[
        :, :, 0
    ],
    "nearest-exact": lambda m, x: functional.interpolate(
        x[:, :, None], size=(1, 4, 4), mode="nearest-exact"
    )[:, :, 0],
    "aminmax": lambda m, x: x - sum(torch.aminmax(x.flatten(2), dim=2))[..., None, None],
    "nansum": lambda m, x: x * x.nansum((2, 3), keepdim=True) + x.nanmean((2, 3), keepdim=True),
    "count_nonzero": lambda m, x: x * torch.count_nonzero(x > 0, dim=(2, 3))[..., None, None],
    "logcumsumexp": lambda m, x: x.logcumsumexp(2),
    "mode": lambda m, x: x + x.round().flatten(2).mode(2).values[..., None, None],
}


@pytest.mark.parametrize("kind", PASSING)
def test_summaries_of_rows_and_columns_pass_channels(kind):
    pools = {"down": nn.MaxPool2d(2, return_indices=True), "up": nn.MaxUnpool2d(2)}
    cut(Around(PASSING[kind], **pools))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.view(len(x), -1, 2, 8, 8).amax(2),
        lambda m, x: x.view(len(x), x.shape[1] // 2, 2, 8, 8).max(2).values,
        lambda m, x: x.view(len(x), -1, 2, 8, 8).softmax(2).mean(2),
    ],
)
def test_channels_that_are_summarised_together_leave_together(function):
    graph, _, _ = cut(Around(function, channels=8))
    assert graph.groups["second.weight"].size == 8


def test_selective_kernels_are_chosen_channel_by_channel():
    def chosen(model, x):
        both = torch.stack([x, model.other(x)], 1)
        scores = model.score(both.sum(1).mean((2, 3))).view(len(x), 2, x.shape[1])
        return (both * scores.softmax(1)[..., None, None]).sum(1)

    cut(Around(chosen, other=nn.Conv2d(16, 16, 1), score=nn.Linear(16, 32)))


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


class NormalisedHeads(nn.Module):
    """Queries and keys of every head are normalised, as in ViT-22B."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.query_norm, self.key_norm, self.heads = norm(4), norm(4), 4

    def forward(self, x):
        x = self.first(x)
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = self.query_norm(query), self.key_norm(key)
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.last(found.transpose(1, 2).flatten(2))


class NormByHand(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, NormByHand])
def test_heads_that_are_normalised_on_their_own_leave_whole(norm):
    graph, _, small = cut(NormalisedHeads(norm), (torch.randn(2, 5, 6).double(),))
    assert graph.groups["query.weight"].size == 4
    assert (small.heads, small.query_norm.weight.shape) == (2, (4,))
