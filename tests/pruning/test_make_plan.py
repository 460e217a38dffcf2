import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.pruning import plan


def refusal(*args, **options):
    with pytest.raises(PlanError) as caught:
        plan(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_smallest_filters_leave(graph, model):
    made = plan(graph, {"body.weight": 0.5})
    norms = np.abs(model.body.weight.detach().numpy()).sum((1, 2, 3))
    assert made.keep["body.weight"] == tuple(sorted(np.argsort(norms, kind="stable")[2:]))


@pytest.mark.parametrize(
    ("channels", "ratio", "stays"),
    [(256, 0.7, 77), (128, 0.8, 26), (10, 0.25, 8), (4, 0.125, 4), (3, 0.99, 1), (8, 0.999, 1)],
)
def test_how_many_stay(channels, ratio, stays):
    model = nn.Sequential(nn.Conv2d(1, channels, 1), nn.Conv2d(channels, 1, 1))
    graph = trace(model, (torch.rand(1, 1, 2, 2),))
    made = plan(graph, ratio)
    assert len(made.keep.get("0.weight", range(channels))) == stays


@pytest.mark.parametrize(
    ("ratio", "round_to", "stays"),
    [(0.5, 8, 24), (0.7, 8, 16), (0.95, 8, 8), (0.05, 8, 48), (0.5, 32, 32), (0.9, 64, 50)],
)
def test_what_stays_is_rounded(ratio, round_to, stays):
    model = nn.Sequential(nn.Conv2d(1, 50, 1), nn.Conv2d(50, 1, 1))
    graph = trace(model, (torch.rand(1, 1, 2, 2),))
    made = plan(graph, ratio, round_to=round_to)
    assert len(made.keep.get("0.weight", range(50))) == stays


@pytest.mark.parametrize("round_to", [0, -8, 2.5, True, "8"])
def test_a_multiple_that_cannot_be_meant(graph, round_to):
    assert f"Received {round_to!r}" in refusal(graph, 0.5, round_to=round_to)


def test_one_ratio_for_every_prunable_group(graph):
    assert set(plan(graph, 0.5).groups) == {"stem.weight", "body.weight"}


def test_old_spellings_and_aliases_name_layers(graph):
    expected = plan(graph, {"body.weight": 0.5})
    assert plan(graph, {"body.weights": 0.5}) == expected
    assert plan(graph, {"res2_weights": 0.5}, aliases={"res2_weights": "body.weight"}) == expected


def test_any_layer_of_a_group_names_the_group(graph):
    assert plan(graph, {"back.weight": 0.5}) == plan(graph, {"stem.weight": 0.5})


def test_two_names_of_one_group_are_noted(graph):
    made = plan(graph, {"stem.weight": 0.5, "back.weight": 0.3})
    assert len(made.keep["stem.weight"]) == 3
    (note,) = made.notes
    assert note == (
        "'back.weight' is cut together with 'stem.weight': the ratio given first, 0.5, holds for "
        "both; 0.3 is ignored."
    )


def test_equal_ratios_need_a_note_only_where_one_layer_decides(graph):
    ratios = {"stem.weight": 0.5, "back.weight": 0.5}
    assert plan(graph, ratios).notes == ()
    (note,) = plan(graph, ratios, local=True).notes
    assert note == (
        "'back.weight' is cut together with 'stem.weight', whose weights alone choose the channels."
    )


def test_local_scores_one_layer_and_coupled_scores_all(graph, model):
    with torch.no_grad():
        for layer, loud in ((model.stem, (0, 1, 2)), (model.back, (3, 4, 5))):
            layer.weight.fill_(0.1)
            layer.weight[list(loud)] = 1.0
        model.back.weight[5] = 100.0
    assert plan(graph, {"stem.weight": 0.5}, local=True).keep["stem.weight"] == (0, 1, 2)
    assert plan(graph, {"back.weight": 0.5}, local=True).keep["stem.weight"] == (3, 4, 5)
    # Each layer's scores are divided by their mean, so that channel 5 cannot drown the stem.
    assert plan(graph, {"stem.weight": 0.5}).keep["stem.weight"] == (1, 2, 5)


class Projected(nn.Module):
    """A residual sum of two layers, each with a normalisation of its own."""

    def __init__(self, norm):
        super().__init__()
        self.projection = nn.Sequential(nn.Conv2d(3, 4, 1), norm(4))
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = norm(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.norm(self.body(x)) + self.projection(x))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_local_bn_scale_is_that_of_the_layers_own_normalisation(norm):
    model = Projected(norm)
    with torch.no_grad():
        model.projection[1].weight.copy_(torch.tensor([1.0, 2, 3, 40]))
        model.norm.weight.copy_(torch.tensor([4.0, 3, 2, 1]))
    graph = trace(model, (torch.rand(1, 3, 4, 4),))

    def kept(name, **options):
        (keep,) = plan(graph, {name: 0.5}, "bn_scale", **options).keep.values()
        return keep

    assert kept("projection.0.weight", local=True) == (2, 3)
    assert kept("body.weight", local=True) == (0, 1)
    assert kept("body.weight") == (0, 3)


def test_local_scores_come_from_the_leading_layer_of_a_part(images):
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.head = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 2, 1)
            self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.head(self.both(x) + torch.cat([self.left(x), self.right(x)], 1))

    model = Parts()
    with torch.no_grad():
        model.both.weight[3:] = torch.arange(4.0)[:, None, None, None]
        model.right.weight[0] = 1000.0
    graph = trace(model, images)
    assert plan(graph, 0.5, local=True).keep["both.weight[3:]"] == (2, 3)
    assert plan(graph, 0.5).keep["both.weight[3:]"] == (0, 3)


def test_groups_keep_the_order_of_the_graph(graph):
    assert list(plan(graph, {"body.weight": 0.5, "stem.weight": 0.5}).groups) == [
        "stem.weight",
        "body.weight",
    ]


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan"), float("inf"), True, "0.5", None])
def test_a_ratio_out_of_bounds(graph, ratio):
    message = refusal(graph, {"body.weight": ratio})
    assert message.startswith("A ratio must lie strictly between 0 and 1")
    assert f"Received {ratio!r} for 'body.weight'" in message
    if ratio is not None:
        assert "for every group" in refusal(graph, ratio)


def test_every_ratio_is_checked_not_the_first_alone(graph):
    assert "Received 1.5" in refusal(graph, {"body.weight": 0.5, "stem.weight": 1.5})


def test_an_unknown_name_gets_the_nearest(graph):
    message = refusal(graph, {"bodi.weight": 0.5})
    assert "Received 'bodi.weight'" in message
    assert "Nearest: 'body.weight'." in message


def test_a_tensor_that_makes_no_channels(graph):
    message = refusal(graph, {"norm.weight": 0.5})
    assert "Received 'norm.weight', which produces none." in message


def test_a_frozen_group_says_why(graph):
    message = refusal(graph, {"head.weight": 0.5})
    assert "which is an output of the model. Leave it out." in message


def test_a_mixed_group_says_what_mixes_it_and_how_to_allow_it(transformer_graph):
    message = refusal(transformer_graph, {"0.weight": 0.5})
    assert "mixed by layer_norm at '1'" in message
    assert "inexact=True" in message
    made = plan(transformer_graph, {"0.weight": 0.5}, inexact=True)
    assert len(made.keep["0.weight"]) == 4
    assert set(plan(transformer_graph, 0.5).groups) == {"2.weight"}


def test_an_unknown_criterion_gets_the_nearest(graph):
    message = refusal(graph, 0.5, "l1norm")
    assert "Received 'l1norm'. Nearest: 'l1_norm'." in message


def test_a_callable_is_a_criterion(graph):
    def last(group, tensors):
        assert tensors["body.weight"].shape == (4, 6, 1, 1)
        return list(range(group.size))

    made = plan(graph, 0.5, last)
    assert made.keep == {"stem.weight": (3, 4, 5), "body.weight": (2, 3)}
    assert made.criterion == "last"
    assert plan(graph, 0.5, lambda g, t: torch.arange(g.size)).criterion == "<lambda>"


def test_of_equal_scores_the_first_leave(graph):
    made = plan(graph, {"body.weight": 0.5}, lambda group, _: np.zeros(group.size))
    assert made.keep["body.weight"] == (2, 3)


@pytest.mark.parametrize(
    "scores", [np.zeros(3), np.zeros((4, 1)), np.array([0, 1, np.nan, 2]), np.full(4, np.inf)]
)
def test_scores_that_cannot_be_used(graph, scores):
    message = refusal(graph, {"body.weight": 0.5}, lambda group, tensors: scores)
    assert "one finite score per channel" in message
    assert "group 'body.weight' of 4 channels" in message


def test_a_model_without_weights_can_be_priced_not_judged(model, images):
    graph = trace(model.to("meta"), (images[0].to("meta"),))
    assert "Received a model without weights (meta device) for group" in refusal(graph, 0.5)
    made = plan(graph, {"body.weight": 0.5}, "first")
    assert made.keep["body.weight"] == (0, 1)
    assert made.cost(graph).macs < graph.cost().macs


def test_scores_come_from_the_unpruned_weights(graph):
    both = plan(graph, {"stem.weight": 0.5, "body.weight": 0.5})
    alone = plan(graph, {"body.weight": 0.5})
    assert both.keep["body.weight"] == alone.keep["body.weight"]


class Parts(nn.Module):
    """One layer in three pieces: one free, one an output, one normalised together with others."""

    def __init__(self):
        super().__init__()
        self.whole, self.sizes = nn.Conv2d(3, 12, 1), [4, 3, 5]
        self.left, self.norm, self.right = nn.Conv2d(4, 2, 1), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        left, middle, right = self.whole(x).split(self.sizes, 1)
        return self.left(left), middle, self.right(self.norm(right.mean((2, 3))))


@pytest.fixture
def parts(images):
    return trace(Parts(), images)


def test_every_free_group_answers_to_its_own_name(parts):
    free = [group for group in parts.groups.values() if group.reason is None]
    assert [group.name for group in free] == ["whole.weight", "whole.weight[7:]"]
    assert set(plan(parts, {"whole.weight": 0.5}).groups) == {"whole.weight"}
    made = plan(parts, {"whole.weight[7:]": 0.5}, inexact=True)
    assert set(made.groups) == {"whole.weight[7:]"}
    assert plan(parts, {"whole.weights[7:]": 0.5}, inexact=True) == made
    assert plan(parts, {"old[7:]": 0.5}, inexact=True, aliases={"old": "whole.weight"}) == made


def test_a_layer_means_all_its_parts_that_can_be_cut(parts):
    frozen, mixed = plan(parts, {"whole.weight": 0.5}).notes
    assert frozen == (
        "3 channels of 'whole.weight' stay: group 'whole.weight[4:]' is an output of the model."
    )
    assert mixed == (
        "5 channels of 'whole.weight' stay: group 'whole.weight[7:]' is mixed by layer_norm at "
        "'norm', and inexact=True was not given."
    )
    made = plan(parts, {"whole.weight": 0.5}, inexact=True)
    assert set(made.groups) == {"whole.weight", "whole.weight[7:]"}
    assert made.notes == (frozen,)


def test_a_part_that_is_named_by_itself_has_its_own_ratio(parts):
    ratios = {"whole.weight": 0.25, "whole.weight[7:]": 0.75}
    for order in (ratios, dict(reversed(ratios.items()))):
        made = plan(parts, order, inexact=True)
        sizes = {name: len(keep) for name, keep in made.keep.items()}
        assert sizes == {"whole.weight": 3, "whole.weight[7:]": 1}
        assert not any("ignored" in note for note in made.notes)


def test_a_layer_all_of_whose_parts_are_frozen_is_refused(images):
    model = nn.Conv2d(3, 4, 1)
    message = refusal(trace(model, images), {"weight": 0.5})
    assert "group 'weight', which is an output of the model" in message
    assert "must be cut exactly" in refusal(parts_of_mixed(images), {"0.weight": 0.5})


def parts_of_mixed(images):
    return trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1)), images)
