import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight import zoo
from flyweight.errors import PlanError
from flyweight.graph import trace
from flyweight.origin import origin_of
from flyweight.pruning import PruningPlan, largest_error, masked, plan, prune, prune_
from flyweight.pruning.verification import require_same


@pytest.fixture
def made(graph):
    return plan(graph, 0.5)


def test_the_original_is_left_alone_and_the_copy_is_narrow(model, made):
    before = copy.deepcopy(model.state_dict())
    small = prune(model, made)
    assert type(small) is type(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert small.stem.weight.shape == (3, 3, 3, 3)
    assert small.body.weight.shape == (2, 3, 1, 1)


def test_what_stays_is_what_the_plan_keeps(model, made):
    small = prune(model, made)
    stem, body = (list(made.keep[name]) for name in ("stem.weight", "body.weight"))
    assert torch.equal(small.stem.weight, model.stem.weight[stem])
    assert torch.equal(small.norm.running_var, model.norm.running_var[stem])
    assert torch.equal(small.body.weight, model.body.weight[body][:, stem])
    assert torch.equal(small.head.weight, model.head.weight[:, stem])
    assert torch.equal(small.head.bias, model.head.bias)


def test_in_place(model, made):
    twin, expected = copy.deepcopy(model), prune(model, made).state_dict()
    modules = list(twin.modules())
    prune_(twin, made)
    assert list(twin.modules()) == modules
    assert all(torch.equal(value, expected[name]) for name, value in twin.state_dict().items())


def test_attributes_stay_true():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 12, 1, groups=2),
        nn.ConvTranspose2d(12, 6, 2),
        nn.GroupNorm(2, 6),
        nn.Flatten(2),
        nn.Linear(9 * 9, 10),
        nn.LayerNorm(10),
        nn.Linear(10, 2),
    )
    x = torch.rand(1, 3, 10, 10)
    small = prune(model, plan(trace(model, (x,)), 0.5, inexact=True))
    assert (small[0].in_channels, small[0].out_channels, small[0].groups) == (3, 4, 1)
    assert (small[1].num_features, small[2].num_parameters) == (4, 4)
    assert (small[3].in_channels, small[3].out_channels, small[3].groups) == (4, 4, 4)
    assert (small[4].in_channels, small[4].out_channels, small[4].groups) == (4, 6, 2)
    assert (small[5].in_channels, small[5].out_channels) == (6, small[5].weight.shape[1])
    assert (small[6].num_channels, small[6].num_groups) == (small[5].out_channels, 2)
    assert (small[8].in_features, small[8].out_features) == (81, 5)
    assert small[9].normalized_shape == (5,)
    assert (small[10].in_features, small[10].out_features) == (5, 2)
    assert [type(layer) for layer in small] == [type(layer) for layer in model]
    assert small(x).shape == model(x).shape
    for layer in small:  # what a layer says of itself builds it again
        again = eval(repr(layer), dict(vars(nn)))
        assert {name: value.shape for name, value in again.state_dict().items()} == {
            name: value.shape for name, value in layer.state_dict().items()
        }


def test_a_depthwise_multiplier_stays_true():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 12, 3, groups=4), nn.Conv2d(12, 2, 1))
    small = prune(model, plan(trace(model, (torch.rand(1, 3, 6, 6),)), 0.5))
    assert (small[1].in_channels, small[1].out_channels, small[1].groups) == (2, 6, 2)


def test_gradients_flow_and_frozen_parameters_stay_frozen(model, made, images):
    model.stem.requires_grad_(False)
    model.train()
    small = prune(model, made)
    assert small.training
    assert not small.stem.weight.requires_grad
    learning = [value for value in small.parameters() if value.requires_grad]
    assert all(isinstance(value, nn.Parameter) and value.is_leaf for value in learning)
    small(torch.rand(4, 3, 6, 6)).sum().backward()
    assert all(value.grad is not None and value.grad.shape == value.shape for value in learning)
    assert small.stem.weight.grad is None


def test_the_pruned_model_exports_and_traces(model, made, images):
    small = prune(model, made).eval()
    program = torch.export.export(small, images)
    assert torch.allclose(program.module()(*images), small(*images), atol=1e-6)
    again = plan(trace(small, images), 0.5)
    assert prune(small, again).stem.weight.shape[0] == 1


def test_keeping_everything_changes_nothing(model, graph, images):
    same = prune(model, PruningPlan(graph.fingerprint, {}, "none", graph.inputs)).eval()
    assert torch.equal(same(*images), model.eval()(*images))


def test_tied_layers_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
            self.one, self.two = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.last(self.two(self.one(self.first(x)).relu()))

    model, x = Tied(), torch.rand(1, 3, 4, 4)
    made = plan(trace(model, (x,)), 0.5)
    small = prune(model, made)
    assert small.two.weight is small.one.weight
    assert small.two.weight.shape == (3, 3, 1, 1)
    assert small.two.in_channels == small.two.out_channels == 3
    assert trace(small, (x,)).cost() == made.cost(trace(model, (x,)))


def test_a_plan_for_another_model_is_refused(model, made):
    other = nn.Conv2d(3, 6, 3)
    with pytest.raises(PlanError, match=r"narrows 'stem.weight', which the model does not have"):
        prune(other, made)
    assert other.weight.shape == (6, 3, 3, 3)


def test_pruning_twice_with_one_plan_is_refused_and_changes_nothing(model, made):
    small = prune(model, made)
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    with pytest.raises(
        PlanError, match=r"too small for the plan of graph .*may have been pruned already"
    ):
        prune_(small, made)
    assert {name: value.shape for name, value in small.state_dict().items()} == shapes


class Counting(nn.Module):
    """Its code counts channels by hand, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.first(x)
        if self.way == "view":
            x = x.view(1, 6, 4, 4) + 0
        if self.way == "assert":
            assert x.shape[1] == 6
        if self.way == "scale":
            x = x * x.shape[1]
        return self.last(x)


@pytest.mark.parametrize(("way", "op"), [("view", "view"), ("assert", "conv2d")])
def test_code_that_does_not_follow_freezes_its_channels(way, op):
    group = trace(Counting(way), (torch.rand(1, 3, 4, 4),)).groups["first.weight"]
    assert group.reason is not None
    assert group.reason.startswith(f"has a size that the model's code writes by hand: {op} ")


def test_code_that_computes_something_else_is_found_out():
    model, x = Counting("scale"), torch.rand(1, 3, 4, 4)
    group = trace(model, (x,)).groups["first.weight"]
    assert group.reason == (
        "has a width that the model's code computes a value of: mul in the model's forward"
    )
    # The check finds it, too, in a plan that was made for other code.
    made = plan(trace(Counting("none"), (x,)), 0.5)
    with pytest.raises(PlanError, match="Received a relative error of ") as caught:
        prune(model, made)
    assert "\n" not in str(caught.value)
    assert prune(model, made, verify=False).first.weight.shape[0] == 3


def test_verification_leaves_training_flags_alone(model, made):
    model.train()
    small = prune(model, made)
    assert all(module.training for module in [*model.modules(), *small.modules()])
    assert model.norm.num_batches_tracked == 0


def test_masked_is_the_definition(model, made, images):
    twin = masked(model, made).eval()
    gone = sorted(set(range(6)) - set(made.keep["stem.weight"]))
    assert not twin.head.weight[:, gone].any()
    assert torch.equal(twin.stem.weight, model.stem.weight)
    small = prune(model, made).eval()
    with torch.no_grad():
        assert torch.allclose(twin(*images), small(*images), atol=1e-6)
        assert not torch.allclose(twin(*images), model.eval()(*images), atol=1e-3)


def test_errors_are_measured_and_judged(model, made, images):
    small = prune(model, made)
    assert largest_error(model, small, made, images) < 1e-5
    with torch.no_grad():
        small.head.bias += 1
    assert largest_error(model, small, made, images) > 0.1
    with pytest.raises(PlanError, match=r"relative error of .*allowed 1e-09"):
        require_same(model, small, made)
    with torch.no_grad():
        small.head.bias.fill_(float("nan"))
    assert largest_error(model, small, made, images) == float("inf")
    small.head = nn.Linear(3, 5)
    assert largest_error(model, small, made, images) == float("inf")


def test_outputs_of_every_form_are_compared():
    class Forms(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            x = self.last(self.first(x))
            return {"maps": [x, (x * 2,)], "note": None}

    model, x = Forms(), torch.rand(1, 3, 4, 4)
    made = plan(trace(model, (x,)), 0.5)
    small = prune(model, made)
    assert largest_error(model, small, made, (x,)) < 1e-5


def test_inexact_plans_must_run():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    x = torch.rand(2, 4)
    made = plan(trace(model, (x,)), 0.5, inexact=True)
    assert prune(model, made)(x).shape == (2, 2)


def test_lineage_carries_every_plan():
    model = zoo.create("yolov3_mobilenet_v1", num_classes=2, width=0.1)
    images = (torch.rand(1, 3, 32, 32),)
    first = plan(trace(model, images), {"yolo_block.0.2.conv.weights": 0.5})
    small = prune(model, first)
    second = plan(trace(small, images), {"yolo_block.0.tip.conv.weights": 0.5})
    prune_(small, second)
    assert origin_of(model).plans == ()
    note = origin_of(small)
    assert (note.architecture, note.arguments["num_classes"]) == ("yolov3_mobilenet_v1", 2)
    assert [json.loads(text)["graph"] for text in note.plans] == [first.graph, second.graph]
    again = zoo.create(note.architecture, **note.arguments)
    for text in note.plans:
        prune_(again, PruningPlan.from_json(text))
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes


def test_a_model_on_the_meta_device_is_cut_without_weights(images):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1))
        graph = trace(model, (torch.rand(1, 3, 4, 4),))
    small = prune(model, plan(graph, 0.5, "first"))
    assert small[0].weight.is_meta
    assert small[0].weight.shape == (3, 3, 1, 1)


def test_a_plan_that_sets_what_the_model_does_not_have(model, made):
    strange = replace(made, numbers={"body.forward": 2})
    with pytest.raises(PlanError, match="Received a plan for another: 'body' has no whole number"):
        prune(model, strange)


class Remembering(nn.Module):
    """Keeps a table from its first forward, as position encodings do, and counts its runs."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.table = None
        self.tables = {}
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(x.shape[0], dtype=x.dtype)[:, None]
            self.tables[x.shape] = self.table
        self.runs.add_(1)
        return self.last(self.first(x) * self.table)


@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_nothing_behind(training):
    model, x = Remembering().train(training), torch.rand(3, 4)
    small = prune(model, plan(trace(model, (x,)), 0.5))
    for one in (model, small):
        assert one.table is None
        assert one.tables == {}
        assert float(one.runs) == 0
        assert one.training is training
        one(x).sum().backward()  # A table made in inference mode would be refused here.
        assert one.first.weight.grad is not None


class Keyword(nn.Module):
    """Needs a keyword input, and counts channels by hand."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x, *, mask, options):
        y = self.first(x).view(x.shape[0], self.width, *x.shape[2:])
        return self.last(y * mask + options["shift"])


def test_keyword_inputs_reach_trials_and_the_check():
    model = Keyword()
    x, mask = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    kwargs = {"mask": mask, "options": {"shift": torch.rand(1)}}
    graph = trace(model, (x,), kwargs)
    made = plan(graph, 0.5)
    assert made.numbers == {"width": 3}
    assert list(made.keywords) == ["mask", "options"]
    again = PruningPlan.from_json(made.to_json())
    assert again == made
    small = prune(model, again)
    assert small.width == 3
    assert largest_error(model, small, made, (x,), kwargs) < 1e-5
    with torch.no_grad():
        small.last.bias += 1
    with pytest.raises(PlanError, match="relative error"):
        require_same(model, small, made)


def test_keyword_inputs_alone_are_checked_too():
    class Only(Keyword):
        def forward(self, *, x):
            return self.last(self.first(x) * self.first.out_channels**-0.5)

    class Plain(Keyword):
        def forward(self, *, x):
            return self.last(self.first(x))

    model, kwargs = Only(), {"x": torch.rand(1, 3, 4, 4)}
    assert not trace(model, (), kwargs).prunable()
    made = plan(trace(Plain(), (), kwargs), 0.5)
    assert made.inputs == ()
    with pytest.raises(PlanError, match="relative error"):
        prune(model, made)


def test_a_plan_without_keyword_inputs_is_the_text_it_was(made):
    assert "keywords" not in made.to_json()


class TiedTokens(nn.Module):
    """One matrix is the embedding and the output layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 12), nn.Linear(12, 20, bias=False)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.out(x + self.down(self.up(x).relu()))


class TiedLinear(nn.Module):
    """An autoencoder whose decoder has the encoder's matrices, transposed."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 8), nn.Linear(8, 6)

    def forward(self, x):
        code = self.second(self.first(x).relu())
        x = functional.linear(code, self.second.weight.t()).relu()
        return functional.linear(x, self.first.weight.t())


class TiedConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        x = functional.conv_transpose2d(x, self.second.weight).relu()
        return functional.conv_transpose2d(x, self.first.weight)


class TiedProducts(nn.Module):
    """Bare matrices, one of which reads the channels that it makes."""

    def __init__(self):
        super().__init__()
        self.outer, self.inner = (nn.Parameter(torch.randn(size, 8)) for size in (10, 8))
        self.offset = nn.Parameter(torch.randn(8))

    def forward(self, x):
        x = (x @ self.outer + self.offset).relu()
        return (x @ self.inner).relu() @ self.inner.T @ self.outer.T


def with_zeros_for_what_left(model, small, made, graph):
    """Return a copy of `model` that has the values of `small` and zeros elsewhere."""
    zeroed, kept = copy.deepcopy(model), dict(small.named_parameters())
    slices = made.slices(graph)
    for name, value in zeroed.named_parameters():
        at = [torch.arange(size) for size in value.shape]
        for axis, stays in slices.get(name, {}).items():
            at[axis] = torch.tensor(stays)
        value.data.zero_()
        value.data[torch.meshgrid(*at, indexing="ij")] = kept[name].data
    return zeroed


@pytest.mark.parametrize(
    ("model", "inputs", "least"),
    [
        (TiedTokens, torch.randint(0, 20, (2, 7)), 0.6),
        (TiedLinear, torch.randn(4, 10).double(), 0.5),
        (TiedConvolutions, torch.randn(2, 3, 9, 9).double(), 0.6),
        (TiedProducts, torch.randn(4, 10).double(), 0.6),
    ],
)
def test_tied_weights_are_cut(model, inputs, least):
    torch.manual_seed(0)
    model = model().double().eval()
    graph = trace(model, (inputs,))
    made = plan(graph, 0.5)
    small = prune(model, made)
    gone = 1 - made.cost(graph).params / graph.cost().params
    assert gone > least
    with torch.no_grad():
        expected = with_zeros_for_what_left(model, small, made, graph)(inputs)
        torch.testing.assert_close(small(inputs), expected, rtol=1e-12, atol=1e-12)
    assert largest_error(model, small, made, (inputs,)) < 1e-12
    assert PruningPlan.from_json(made.to_json()) == made


def test_tied_weights_stay_tied():
    model = TiedTokens()
    tokens = (torch.randint(0, 20, (2, 7)),)
    small = prune(model, plan(trace(model, tokens), 0.5))
    assert small.out.weight is small.embed.weight
    small(*tokens).sum().backward()
    assert small.embed.weight.grad.shape == (20, 6)
