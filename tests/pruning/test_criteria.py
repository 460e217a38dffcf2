"""Every criterion against a plain computation of the formula."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.graph.groups import ChannelGroup, Member
from flyweight.pruning import CRITERIA, plan
from flyweight.pruning.criteria import normalisation_scales


@pytest.fixture(scope="module")
def layers():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 2, 1))


@pytest.fixture(scope="module")
def chain(layers):
    return trace(layers, (torch.rand(1, 3, 8, 8),))


def rows_of(layer):
    return layer.weight.detach().numpy().reshape(len(layer.weight), -1)


def expected(name, rows):
    if name == "l1_norm":
        return np.abs(rows).sum(1)
    if name == "l2_norm":
        return np.sqrt((rows**2).sum(1))
    return np.array([sum(np.sqrt(((one - other) ** 2).sum()) for other in rows) for one in rows])


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "geometry_median"])
def test_choices_are_those_of_a_plain_argsort(chain, layers, name):
    scores = expected(name, rows_of(layers[0]))
    found = CRITERIA[name](chain.groups["0.weight"], chain.tensors)
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    removed = set(np.argsort(scores, kind="stable")[:20].tolist())
    assert set(range(40)) - set(plan(chain, 0.5, name).keep["0.weight"]) == removed


def test_equal_filters_have_no_distance():
    # The product form of a distance in single precision would give sqrt(rounding error).
    model = nn.Sequential(nn.Conv2d(64, 30, 3), nn.Conv2d(30, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.rand(64, 3, 3).expand(30, -1, -1, -1) * 100)
    graph = trace(model, (torch.rand(1, 64, 4, 4),))
    scores = CRITERIA["geometry_median"](graph.groups["0.weight"], graph.tensors)
    assert np.abs(scores).max() < 1e-2


def test_bn_scale_is_the_size_of_the_scale(chain, layers):
    with torch.no_grad():
        layers[1].weight.copy_(torch.linspace(-1, 1, 40))
    found = CRITERIA["bn_scale"](chain.groups["0.weight"], chain.tensors)
    np.testing.assert_allclose(found, np.abs(np.linspace(-1, 1, 40)), atol=1e-6)


def test_bn_scale_without_a_normalisation_is_refused(graph):
    with pytest.raises(PlanError, match=r"Received group 'body.weight' without one. Choose 'l1_no"):
        plan(graph, {"body.weight": 0.5}, "bn_scale")


def test_random_is_fixed_per_group(chain):
    group = chain.groups["0.weight"]
    first, again = (CRITERIA["random"](group, chain.tensors) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 40


def test_first_keeps_the_first(chain):
    assert plan(chain, 0.75, "first").keep["0.weight"] == tuple(range(10))


def test_coupled_layers_are_divided_by_their_mean_and_summed(graph, model):
    found = CRITERIA["l1_norm"](graph.groups["stem.weight"], graph.tensors)
    parts = [np.abs(rows_of(layer)).sum(1) for layer in (model.stem, model.back)]
    np.testing.assert_allclose(found, sum(part / part.mean() for part in parts), rtol=1e-5)


def test_the_filters_of_one_channel_are_summed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    norms = np.abs(rows_of(model[1])).sum(1)
    found = CRITERIA["l1_norm"](graph.groups["1.weight"], graph.tensors)
    np.testing.assert_allclose(found, norms[:4] + norms[4:], rtol=1e-6)


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "geometry_median"])
def test_places_of_a_channel_are_compared_place_by_place(name):
    """In a grouped convolution the filters of one channel belong to different inputs."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    rows = rows_of(model[1])
    found = CRITERIA[name](graph.groups["1.weight"], graph.tensors)
    np.testing.assert_allclose(found, expected(name, rows[:4]) + expected(name, rows[4:]), 1e-6)


def test_a_transposed_convolution_makes_its_second_axis():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Conv2d(5, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    norms = model[0].weight.detach().abs().sum((0, 2, 3)).numpy()
    found = CRITERIA["l1_norm"](graph.groups["0.weight"], graph.tensors)
    np.testing.assert_allclose(found, norms, rtol=1e-6)


def test_a_grouped_transposed_convolution_sums_over_its_groups():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 2, 1)
    )
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    # Stored as (in, out / groups, ...): one position of axis 1 is an output of both groups.
    norms = model[1].weight.detach().abs().sum((0, 2, 3)).numpy()
    found = CRITERIA["l1_norm"](graph.groups["1.weight"], graph.tensors)
    np.testing.assert_allclose(found, norms, rtol=1e-6)


class Joined(nn.Module):
    """Two layers side by side, summed with a third that is as wide as both."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.wide = nn.Conv2d(3, 10, 1)
        self.norm = nn.BatchNorm2d(10)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x):
        return self.head(self.norm(torch.cat([self.left(x), self.right(x)], 1) + self.wide(x)))


def test_a_concatenation_is_scored_part_by_part():
    model = Joined()
    nn.init.uniform_(model.norm.weight, 0.1, 1)
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    wide = np.abs(rows_of(model.wide)).sum(1)
    scale = model.norm.weight.detach().numpy()
    for layer, part in ((model.left, slice(0, 4)), (model.right, slice(4, 10))):
        name = "left.weight" if layer is model.left else "right.weight"
        both = (np.abs(rows_of(layer)).sum(1), wide[part])
        found = CRITERIA["l1_norm"](graph.groups[name], graph.tensors)
        np.testing.assert_allclose(found, sum(norms / norms.mean() for norms in both), rtol=1e-5)
        found = CRITERIA["bn_scale"](graph.groups[name], graph.tensors)
        np.testing.assert_allclose(found, scale[part], rtol=1e-6)


def test_filters_of_different_groups_do_not_stand_in_for_each_other():
    """Query, key and value of one projection are different groups of one weight."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Conv2d(3, 9, 1)
            self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x):
            left, right = self.both(x).split([4, 5], 1)
            return self.left(left) + self.right(right)

    model = Halves()
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    rows = rows_of(model.both)
    parts = [group for name, group in graph.groups.items() if name.startswith("both")]
    assert sorted(group.size for group in parts) == [4, 5]
    for group in parts:
        found = CRITERIA["geometry_median"](group, graph.tensors)
        part = rows[:4] if group.size == 4 else rows[4:]
        np.testing.assert_allclose(found, expected("geometry_median", part), rtol=1e-5)


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "geometry_median"])
def test_what_follows_and_what_reads_has_no_say(name):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
    )
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    (group,) = graph.prunable().values()
    assert {m.tensor: m.role for m in group.members}["1.weight"] == "follows"
    found = CRITERIA[name](group, graph.tensors)
    np.testing.assert_allclose(found, expected(name, rows_of(model[0])), rtol=1e-5)


def test_every_layer_of_a_long_residual_stream_counts():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x.relu())
            return self.head(x)

    model = Stream()
    with torch.no_grad():
        model.blocks[0].weight.mul_(1000)  # a layer's scale must not decide
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    norms = [np.abs(rows_of(layer)).sum(1) for layer in (model.stem, *model.blocks)]
    found = CRITERIA["l1_norm"](graph.groups["stem.weight"], graph.tensors)
    np.testing.assert_allclose(found, sum(part / part.mean() for part in norms), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"bn_scale"}))
def test_half_precision_weights_are_judged(name):
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)).bfloat16()
    graph = trace(model, (torch.rand(1, 3, dtype=torch.bfloat16),))
    assert len(plan(graph, 0.5, name).keep["0.weight"]) == 3


def test_a_prelu_is_no_normalisation():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.PReLU(6), nn.Conv2d(6, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    assert "1.weight" in {member.tensor for member in graph.groups["0.weight"].members}
    with pytest.raises(PlanError, match="needs a normalisation"):
        CRITERIA["bn_scale"](graph.groups["0.weight"], graph.tensors)


def test_the_slopes_of_a_prelu_do_not_disturb_a_scale(layers):
    model = nn.Sequential(*layers[:2], nn.PReLU(40), nn.Conv2d(40, 2, 1))
    nn.init.uniform_(model[2].weight, 5, 50)
    nn.init.uniform_(model[1].weight, -1, 1)
    graph = trace(model, (torch.rand(1, 3, 8, 8),))
    found = CRITERIA["bn_scale"](graph.groups["0.weight"], graph.tensors)
    np.testing.assert_allclose(found, model[1].weight.detach().abs().numpy(), rtol=1e-6)


class Root(nn.BatchNorm2d):
    """A normalisation whose parameters have no path before their name."""

    def __init__(self):
        super().__init__(4)
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(super().forward(self.stem(x)))


@pytest.mark.parametrize(
    "norm",
    [
        FrozenBatchNorm2d(6),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.GroupNorm(2, 6),
        nn.InstanceNorm2d(6, affine=True),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_scales_of_many_normalisations_are_found(norm):
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-0.9, 1, 6))
    model = nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.Conv2d(6, 2, 1))
    graph = trace(model, (torch.rand(2, 3, 4, 4),))
    group = graph.groups["0.weight"]
    scales = normalisation_scales(group, graph.tensors)
    assert [member.tensor for member in scales] == ["1.weight"]
    places = scales[0].positions(group.size)
    wanted = np.abs(np.linspace(-0.9, 1, 6))[places].sum(1)
    np.testing.assert_allclose(CRITERIA["bn_scale"](group, graph.tensors), wanted, atol=1e-6)


@pytest.mark.parametrize("norm", [nn.RMSNorm(6), nn.LayerNorm(6, bias=False), nn.LayerNorm(6)])
def test_scales_of_token_normalisations_are_found(norm):
    model = nn.Sequential(nn.Linear(3, 6), norm, nn.Linear(6, 2))
    graph = trace(model, (torch.rand(2, 3),))
    scales = normalisation_scales(graph.groups["0.weight"], graph.tensors)
    assert [member.tensor for member in scales] == ["1.weight"]


def test_a_normalisation_at_the_root_is_found():
    graph = trace(Root(), (torch.rand(1, 3, 4, 4),))
    scales = normalisation_scales(graph.groups["stem.weight"], graph.tensors)
    assert [member.tensor for member in scales] == ["weight"]


def test_a_weight_that_is_computed_is_judged_by_its_parts():
    from torch.nn.utils.parametrizations import weight_norm

    model = nn.Sequential(weight_norm(nn.Conv2d(3, 6, 1)), nn.Conv2d(6, 2, 1))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))
    for group in graph.prunable().values():
        assert len(set(CRITERIA["l1_norm"](group, graph.tensors).tolist())) == group.size


def test_without_a_layer_that_makes_them_the_followers_judge():
    tensors = {"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([[1.0, 1.0]])}
    follows = Member("a", 0, "follows", (0, 1, 1, 1))
    reads = Member("b", 1, "consumes", (0, 1, 1, 1))
    group = ChannelGroup("a", 2, (follows, reads))
    assert CRITERIA["l1_norm"](group, tensors).tolist() == [3.0, 1.0]
    assert CRITERIA["l1_norm"](ChannelGroup("b", 2, (reads,)), tensors).tolist() == [1.0, 1.0]


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def comparison(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("criteria")


def test_the_page_shows_the_measured_rows(comparison):
    text = (ROOT / "docs" / "criteria.md").read_text(encoding="utf-8")
    for name in ("cut", "ranking"):
        assert f"<!-- table: criteria_{name} -->\n| criterion |" in text
    rows = comparison.read_rows(comparison.RESULTS, comparison.COLUMNS)
    assert comparison.filled(text, rows) == text, "run: python benchmarks/criteria.py --table"
    assert {row["criterion"] for row in rows} == {*CRITERIA, "taylor"}


def test_tables_show_mean_and_spread_of_their_rows(comparison):
    common = dict.fromkeys(comparison.COLUMNS, "") | {"criterion": "l1_norm", "ratio": "0.5"}
    common |= {"choice": "uniform", "macs": "25", "dense_macs": "100", "pictures": "450"}
    rows = [
        common | {"seed": str(seed), "accuracy": str(value), "reestimated_accuracy": "1.0"}
        for seed, value in enumerate((0.1, 0.2, 0.6))
    ]
    rows = [row | {"dense_accuracy": "0.99"} for row in rows]
    text = comparison.markdown(rows, "cut")
    assert "| `l1_norm` |  |  | 30.0 ± 26.5 | 100.0 ± 0.0 |" in text
    assert "dense: 99.0 ± 0.0" in text
    assert "ratios 0.5 leave 25 % of the multiply-adds" in text
    assert "| `l1_norm` | 100.0 ± 0.0 |  |  |  |  |" in comparison.markdown(rows, "ranking")
    assert comparison.markdown([], "cut") == ""
