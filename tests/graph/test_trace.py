"""What a trace refuses, and that it leaves the model alone."""

import warnings

import pytest
import torch
from torch import nn

from flyweight.errors import GraphError
from flyweight.graph import trace
from flyweight.zoo import create

IMAGE = (torch.rand(1, 3, 8, 8),)


@torch.library.custom_op("flyweight_tests::running_total", mutates_args=())
def running_total(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(1)


@running_total.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Between(nn.Module):
    """Two layers with `middle` applied between them."""

    def __init__(self, middle, inputs=6):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.middle = middle
        self.last = nn.Conv2d(inputs, 2, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def traced(function, inputs=6):
    return trace(Between(Call(function), inputs), IMAGE)


def reason(function, inputs=6):
    return traced(function, inputs).groups["first.weight"].reason


def test_a_plain_pair_of_layers():
    graph = trace(Between(nn.ReLU()), IMAGE)
    group = graph.groups["first.weight"]
    assert (group.size, group.prunable) == (6, True)
    touched = [(member.tensor, member.axis, member.role) for member in group.members]
    assert touched == [
        ("first.weight", 0, "produces"),
        ("first.bias", 0, "follows"),
        ("last.weight", 1, "consumes"),
    ]


def test_outputs_are_frozen():
    graph = trace(Between(nn.ReLU()), IMAGE)
    assert graph.groups["last.weight"].reason == "is an output of the model"


def test_an_inner_tensor_that_is_returned_too_is_frozen():
    class Feature(Between):
        def forward(self, x):
            feature = self.first(x)
            return {"feature": feature, "scores": [self.last(feature.relu())]}

    assert trace(Feature(None), IMAGE).groups["first.weight"].reason == "is an output of the model"


def test_the_channels_of_the_input_belong_to_no_group():
    graph = trace(Between(nn.ReLU()), IMAGE)
    members = [m for group in graph.groups.values() for m in group.members]
    assert ("first.weight", 1) not in {(member.tensor, member.axis) for member in members}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: torch.fft.ifft(torch.fft.fft(x, dim=1), dim=1).real, "_fft_r2c at 'middle'"),
        (running_total, "running_total at 'middle'"),
        (torch.special.entr, "special_entr at 'middle'"),
    ],
)
def test_an_unknown_operation_freezes_with_its_name_and_module(function, words):
    assert reason(function) == f"passes an operation that has no rule: {words}"


def test_a_known_operation_in_an_unknown_form_freezes():
    class Unbatched(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.last(self.first(x)[0])

    found = trace(Unbatched(), IMAGE).groups["first.weight"].reason
    assert found == ("passes an operation in a form that its rule does not cover: conv2d at 'last'")


CUT = "has a size that the model's code writes by hand: slice at 'middle'"
READ = "is read at positions that stand in the model's code: slice at 'middle'"


@pytest.mark.parametrize(
    ("function", "inputs", "words"),
    [
        (lambda x: x[:, ::2], 3, READ),
        (lambda x: x[:, -2:], 2, CUT),
        (lambda x: x[:, :-1], 5, None),  # from the end: the one channel behind it stays
        (lambda x: x[:, 5:], 1, READ),
        (
            lambda x: x.split(3, 1)[1],
            3,
            "has a size that the model's code writes by hand: split at 'middle'",
        ),
        (
            lambda x: x.chunk(4, 1)[0],
            2,
            None,  # six channels in three parts of two: chunk counts by itself
        ),
        (lambda x: x.chunk(6, 1)[0], 1, "is split into single channels: chunk at 'middle'"),
        (
            lambda x: x[:, 2:3] + x,
            6,
            READ,
        ),
        (
            lambda x: torch.stack(x.unbind(1)[:4], 1),
            4,
            "is read at positions that stand in the model's code: unbind at 'middle'",
        ),
        (
            lambda x: x.select(1, 2).unsqueeze(1),
            1,
            "is read at positions that stand in the model's code: select at 'middle'",
        ),
        (lambda x: x.roll(7, 1), 6, "is rolled all the way round: roll at 'middle'"),
        (lambda x: x.roll(2), 6, "is rolled as one flat row: roll at 'middle'"),
        (
            lambda x: x + torch.arange(6.0)[:, None, None],
            6,
            "meets a tensor whose size is fixed: add at 'middle'",
        ),
        (lambda x: x + torch.ones(x.shape[1], 1, 1), 6, None),
        (
            lambda x: x + torch.ones(6, 1, 1),
            6,
            "has a size that the model's code writes by hand: ones at 'middle'",
        ),
    ],
)
def test_positions_that_stand_in_the_code_freeze(function, inputs, words):
    groups = traced(function, inputs).groups.values()
    makers = [group for group in groups if group.producers()[0].tensor == "first.weight"]
    assert words in {group.reason for group in makers}


def test_a_window_freezes_only_what_its_bounds_count():
    graph = traced(lambda x: x[:, 2:], inputs=4)
    free = graph.groups["first.weight[2:]"]
    assert graph.groups["first.weight"].size == 2
    assert graph.groups["first.weight"].reason == CUT
    assert (free.size, free.prunable) == (4, True)


@pytest.mark.parametrize(("shift", "frozen"), [(2, [4, 5]), (-2, [0, 1])])
def test_a_roll_freezes_what_crosses_the_edge(shift, frozen):
    graph = traced(lambda x: x.roll(shift, 1))
    stuck = [g for g in graph.groups.values() if g.reason and "roll" in g.reason]
    positions = [m.positions(g.size) for g in stuck for m in g.producers()]
    assert sorted(np_rows.ravel().tolist() for np_rows in positions) == [frozen]


def test_a_concat_with_a_fixed_part_freezes_only_that_part():
    class Coordinates(Between):
        def forward(self, x):
            return self.last(torch.cat([x, self.first(x)], 1))

    graph = trace(Coordinates(None, inputs=9), IMAGE)
    group = graph.groups["first.weight"]
    assert group.prunable
    (reader,) = [member for member in group.members if member.role == "consumes"]
    assert reader.positions(6).ravel().tolist() == [3, 4, 5, 6, 7, 8]


def test_padded_channels_of_a_shortcut_freeze_their_partners():
    class OptionA(nn.Module):
        """The parameterless shortcut of CIFAR ResNets (option A)."""

        def __init__(self):
            super().__init__()
            self.first, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.body(x) + nn.functional.pad(x, (0, 0, 0, 0, 2, 2)))

    graph = trace(OptionA(), IMAGE)
    stuck = {name: g for name, g in graph.groups.items() if g.reason and "pad" in g.reason}
    (group,) = stuck.values()
    assert group.reason == "is a part of fixed size: constant_pad_nd at ''" or (
        group.reason == "is a part of fixed size: pad in the model's forward"
    )
    (maker,) = group.producers()
    assert maker.tensor == "body.weight"
    assert maker.positions(group.size).ravel().tolist() == [0, 1, 6, 7]
    assert graph.groups["first.weight"].prunable


def test_tied_layers_are_cut_as_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 6, 1)
            self.one = nn.Conv2d(6, 6, 1)
            self.two = nn.Conv2d(6, 6, 1)
            self.two.weight = self.one.weight
            self.last = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.last(self.two(self.one(self.first(x)).relu()))

    graph = trace(Tied(), IMAGE)
    group = graph.groups["first.weight"]
    touched = [(member.tensor, member.axis) for member in group.members]
    assert set(touched) >= {("one.weight", 0), ("one.weight", 1), ("one.bias", 0), ("two.bias", 0)}
    assert not any(tensor == "two.weight" for tensor, _ in touched)
    assert len(touched) == len(set(touched))
    assert list(graph.prunable()) == ["first.weight"]


@pytest.mark.parametrize("kind", ["parameter", "buffer", "attribute"])
def test_per_channel_constants_go_along(kind):
    class Scaled(Between):
        def __init__(self):
            super().__init__(None)
            value = torch.rand(6, 1, 1)
            if kind == "parameter":
                self.scale = nn.Parameter(value)
            elif kind == "buffer":
                self.register_buffer("scale", value, persistent=False)
            else:
                self.scale = value

        def forward(self, x):
            return self.last(self.first(x) * self.scale)

    graph = trace(Scaled(), IMAGE)
    group = graph.groups["first.weight"]
    assert ("scale", 0, "follows") in [(m.tensor, m.axis, m.role) for m in group.members]
    assert group.prunable
    values = {"parameter": 6, "buffer": 6, "attribute": 0}[kind]
    assert graph.cost().values == 6 * 3 + 6 + 2 * 6 + 2 + values


def test_convolution_along_channels_freezes_them():
    # Efficient channel attention: a kernel slides over the channels.
    class Slide(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Conv1d(1, 4, 3, padding=1)

        def forward(self, x):
            return self.kernel(x.mean((2, 3)).unsqueeze(1)).mean(2)[..., None, None]

    graph = trace(Between(Slide(), inputs=4), IMAGE)
    assert graph.groups["first.weight"].reason == (
        "lies along rows or columns that are convolved: conv1d at 'middle.kernel'"
    )


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: x * x.sum(1, keepdim=True), "sum"),
        (lambda x: x * x.mean(1, keepdim=True), "mean"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: nn.functional.normalize(x, dim=1), "linalg_vector_norm"),
        (lambda x: x + (x.flatten(2).mT @ x.flatten(2)).mean(), "matmul"),
    ],
)
def test_what_computes_across_channels_is_not_exact(function, operation):
    group = traced(function).groups["first.weight"]
    assert not group.exact
    assert group.mixes[0] == f"{operation} at 'middle'"


class Branching(nn.Module):
    """Takes a path by a value, which the meta device does not have."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.last(self.first(x)) if x.sum() > 0 else self.last.bias


def test_a_model_that_asks_for_values_is_run_on_the_example():
    graph = trace(Branching(), IMAGE)
    assert list(graph.prunable()) == ["first.weight"]
    assert trace(Branching(), (-IMAGE[0],)).prunable() == {}


def test_a_model_without_values_that_asks_for_them_is_one_clear_line():
    with torch.device("meta"):
        model = Branching()
    with pytest.raises(GraphError, match="Received from Branching: ") as caught:
        trace(model, (torch.rand(1, 3, 8, 8, device="meta"),))
    assert "\n" not in str(caught.value)


def test_wrong_example_inputs_are_one_clear_line():
    with pytest.raises(GraphError, match="Received from Between: ") as caught:
        trace(Between(nn.ReLU()), (torch.rand(1, 4, 8, 8),))
    assert "\n" not in str(caught.value)


def test_the_model_is_untouched():
    model = Between(nn.Sequential(nn.BatchNorm2d(6), nn.Dropout()))
    model.train()
    model.middle[0].eval()
    model.last.bias.requires_grad_(False)
    model(IMAGE[0]).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: value.grad for name, value in model.named_parameters()}
    training = [module.training for module in model.modules()]
    learning = [value.requires_grad for value in model.parameters()]
    fused = torch.backends.mha.get_fastpath_enabled()
    drawn = torch.random.get_rng_state()

    trace(model, IMAGE)

    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert [module.training for module in model.modules()] == training
    assert [value.requires_grad for value in model.parameters()] == learning
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(value.grad is grads[name] for name, value in model.named_parameters())
    assert torch.is_grad_enabled()


def test_the_model_is_untouched_by_a_trace_that_fails():
    class Failing(Between):
        def forward(self, x):
            raise ValueError("first line\nsecond line")

    model = Failing(nn.ReLU())
    with pytest.raises(GraphError, match="first line"):
        trace(model, IMAGE)
    assert model.training
    assert all(value.requires_grad for value in model.parameters())


def test_a_fingerprint_is_of_structure_alone():
    def fingerprint(side, device, classes=20):
        with torch.device(device):
            model = create("yolov3_mobilenet_v1", num_classes=classes, width=0.25)
            return trace(model, (torch.zeros(1, 3, side, side),)).fingerprint

    first = fingerprint(64, "meta")
    assert first == fingerprint(96, "meta")
    assert first == fingerprint(64, "cpu")
    assert first != fingerprint(64, "meta", classes=3)


def test_a_model_without_parameters():
    graph = trace(nn.ReLU(), IMAGE)
    assert dict(graph.groups) == {}
    assert graph.cost().macs == graph.cost().params == 0


def test_inputs_are_noted():
    graph = trace(Between(nn.ReLU()), (torch.rand(2, 3, 8, 6),))
    assert graph.inputs == (((2, 3, 8, 6), "float32"),)


def test_tracing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(Between(nn.ReLU()), IMAGE)


class _Ordered(nn.Module):
    def __init__(self, *, counted: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.register_buffer("order", torch.tensor([4, 2, 0, 5, 1, 3]))
        self.counted = counted

    def forward(self, x):
        picked = self.first(x)[:, self.order]
        return self.last(picked) + (self.order.sum() if self.counted else 0)


def test_a_stored_order_is_cut_unless_its_values_are_computed_with():
    x = (torch.rand(1, 3, 4, 4),)
    group = trace(_Ordered(counted=False), x).groups["first.weight"]
    assert group.prunable
    assert [m.tensor for m in group.members if m.role == "orders"] == ["order"]
    reason = trace(_Ordered(counted=True), x).groups["first.weight"].reason
    assert "holds an order that is also computed with: sum" in reason
