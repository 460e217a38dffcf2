"""Several runs of one network: what each adds to the graph."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from flyweight.graph import trace
from flyweight.graph.example_inputs import Example
from flyweight.pruning import plan, prune

IMAGES = (torch.rand(2, 3, 12, 12, dtype=torch.float64),)


class Supervised(nn.Module):
    """A helper head; whether it runs, or is returned, depends on the mode."""

    def __init__(self, *, always):
        super().__init__()
        self.always = always
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)
        self.helper, self.out = nn.Conv2d(8, 5, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        features = self.stem(x).relu()
        y = self.out(self.body(features).relu())
        if not (self.training or self.always):
            return y
        helped = self.helper(features)
        return (y, helped) if self.training else y


@pytest.mark.parametrize("always", [True, False])
def test_a_head_of_training_reads_what_is_left_and_keeps_its_classes(always):
    model = Supervised(always=always).double()
    small = prune(model, plan(trace(model, IMAGES), 0.5)).train()
    y, helped = small(*IMAGES)
    (y.sum() + helped.sum()).backward()
    assert small.stem.out_channels == 4
    assert helped.shape == (2, 5, 10, 10)
    assert small.helper.weight.grad.shape == (5, 4, 1, 1)


def test_a_model_is_left_in_its_mode_and_draws_no_random_numbers():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model.double().train()
    state = torch.random.get_rng_state()
    trace(model, IMAGES)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert int(model[2].num_batches_tracked) == 0


class Untransposed(nn.Module):
    """Writes tokens back as an image without a transpose."""

    def __init__(self, transposed):
        super().__init__()
        self.transposed = transposed
        self.stem, self.mix = nn.Conv2d(3, 32, 1), nn.Linear(32, 32)
        self.out = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        tokens = self.mix(self.stem(x).flatten(2).transpose(1, 2))
        if self.transposed:
            tokens = tokens.transpose(1, 2)
        return self.out(tokens.reshape(n, -1, h, w))


def test_a_view_that_ties_channels_by_the_size_of_the_image_freezes_them():
    images = (torch.rand(1, 3, 4, 4, dtype=torch.float64),)
    model = Untransposed(transposed=False).double()
    graph = trace(model, images)
    reason = graph.groups["mix.weight"].reason
    assert reason is not None
    small = prune(model, plan(graph, 0.5))
    larger = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    assert small(larger).shape == model(larger).shape
    assert trace(Untransposed(transposed=True).double(), images).groups["mix.weight"].prunable


class Resized(nn.Module):
    """Counts with a number of its own at other image sizes alone."""

    def __init__(self):
        super().__init__()
        self.dim = 16
        self.patches, self.out = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 4)
        self.table = nn.Parameter(torch.randn(1, 9, 16))

    def forward(self, x):
        y = self.patches(x)
        table, size = self.table, y.shape[-2:]
        if tuple(size) != (3, 3):
            table = table.reshape(1, 3, 3, self.dim).permute(0, 3, 1, 2)
            table = functional.interpolate(table, size=size)
            table = table.permute(0, 2, 3, 1).reshape(1, -1, self.dim)
        return self.out((y.flatten(2).transpose(1, 2) + table).relu().mean(1))


def test_a_number_that_counts_at_another_size_alone_follows():
    model = Resized().double()
    graph = trace(model, IMAGES)
    small = prune(model, plan(graph, 0.5))
    assert small.dim == 8
    assert small(torch.rand(1, 3, 24, 16, dtype=torch.float64)).shape == (1, 4)


class OnRequest(nn.Module):
    """Runs a part for one keyword alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.deep = nn.Conv2d(8, 6, 1)

    def forward(self, x, deep=False):
        y = self.stem(x).relu()
        return self.deep(y) if deep else self.out(y)


def test_parameters_that_no_run_reads_are_named_and_a_further_example_reaches_them():
    model = OnRequest().double()
    (note,) = trace(model, IMAGES).notes
    assert note.startswith("No run reads these parameters, so they keep their size: deep.weight, ")
    graph = trace(model, IMAGES, also=[Example(IMAGES, {"deep": True})])
    assert graph.notes == ()
    small = prune(model, plan(graph, 0.5))
    assert small.deep.in_channels == 4
    assert small(*IMAGES, deep=True).shape == (2, 6, 12, 12)


def test_a_training_mode_that_fails_is_named():
    class NeedsTargets(Supervised):
        def forward(self, x, targets=None):
            if self.training and targets is None:
                raise ValueError("targets must be given")
            return super().forward(x)

    model = NeedsTargets(always=False).double()
    (note, *_) = trace(model, IMAGES).notes
    assert "not recorded in training mode, in which it fails: targets must be given." in note
    graph = trace(model, IMAGES, also=[(*IMAGES, {})])
    assert graph.notes == ()
    assert prune(model, plan(graph, 0.5)).helper.in_channels == 4


class ToNumbers(nn.Module):
    """Returns scores as Python numbers."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.stem, self.out, self.scores = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(8, 6, 1),
        )

    def forward(self, x):
        y = self.stem(x).relu()
        scores = self.scores(y).mean((2, 3))
        return self.out(y), scores.tolist() if self.way == "tolist" else scores.numpy().max()


@pytest.mark.parametrize("way", ["tolist", "numpy"])
def test_values_that_leave_as_numbers_are_outputs(way):
    graph = trace(ToNumbers(way).double().eval(), IMAGES)
    reason = "leaves the model as Python numbers or as an array"
    assert graph.groups["scores.weight"].reason == reason
    assert graph.groups["stem.weight"].prunable


class Cached(nn.Module):
    """Keeps a table behind a cache in an attribute, as some libraries do."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def table(self, size):
        return self.stem.weight.new_ones(size).cumsum(0)

    def forward(self, x):
        if not hasattr(self, "_table"):
            self._table = functools_cache(self.table)
        return self.out(self.stem(x).relu() * self._table(x.shape[-1]))


def functools_cache(function):
    from functools import lru_cache

    return lru_cache(function)


def test_what_ran_before_does_not_decide():
    model = Cached().double()
    fresh = trace(model, IMAGES)
    model(*IMAGES)
    again = trace(model, IMAGES)
    assert list(again.prunable()) == list(fresh.prunable()) == ["stem.weight"]
    small = prune(model, plan(again, 0.5)).train()
    small(*IMAGES).sum().backward()
    assert small.stem.weight.grad is not None


def test_a_buffer_registered_in_the_first_forward_is_each_copys_own():
    class Lazy(Cached):
        def forward(self, x):
            if "offset" not in dict(self.named_buffers()):
                self.register_buffer("offset", x.new_zeros(1, 1, 1, x.shape[-1]))
            return self.out(self.stem(x).relu() + self.offset)

    model = Lazy().double()
    assert list(trace(model, IMAGES).prunable()) == ["stem.weight"]
    assert not dict(model.named_buffers())


class Halves(nn.Module):
    """Takes a quarter of the width at a time, as a temporal shift does."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.stem(x)
        fold = y.shape[1] // 4
        moved = torch.zeros_like(y)
        moved[:-1, :fold] = y[1:, :fold]
        moved[:, fold:] = y[:, fold:]
        return self.out(moved)


def test_groups_that_can_be_cut_can_be_cut_one_by_one():
    model = Halves().double()
    graph = trace(model, IMAGES)
    for name in graph.prunable():
        prune(model, plan(graph, {name: 0.5}))


def test_one_place_freezes_what_it_counts_and_nothing_else():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads, self.qkv, self.out = 4, nn.Linear(16, 48, bias=False), nn.Linear(16, 16)

        def forward(self, x):
            n, t, c = x.shape
            q, k, v = self.qkv(x).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            return self.out(mixed.transpose(1, 2).reshape(n, t, c))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention = nn.Linear(6, 16), Attention()
            self.up, self.down, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.embed(x)
            x = x + self.attention(x)
            return self.last(x + self.down(self.up(x).relu()))

    graph = trace(Net(), (torch.rand(2, 5, 6),))
    assert graph.groups["up.weight"].prunable
    reasons = [group.reason or "" for group in graph.groups.values()]
    assert any("'attention'" in reason for reason in reasons)


def test_training_may_ask_for_values_where_evaluation_does_not():
    class Matching(Supervised):
        def forward(self, x):
            found = super().forward(x)
            if self.training and float(found[1].abs().sum()) < 0:
                raise ValueError("no image matches")
            return found

    graph = trace(Matching(always=False).double(), IMAGES)
    assert graph.notes == ()
    assert [(run.mode, len(run.example.args[0])) for run in graph.runs] == [
        ("evaluation", 2),
        ("training", 4),
        ("evaluation", 3),
    ]
    assert prune(Matching(always=False).double(), plan(graph, 0.5)).helper.in_channels == 4


def test_training_with_a_batch_of_one_is_recorded_with_two():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    model.append(nn.Conv2d(8, 4, 1))
    graph = trace(model.double(), (IMAGES[0][:1],))
    assert graph.notes == ()
    assert [(run.mode, len(run.example.args[0])) for run in graph.runs[:2]] == [
        ("evaluation", 1),
        ("training", 2),
    ]


def test_a_trace_on_values_leaves_the_random_numbers_to_the_user():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.stem(x)
            return self.out(y + torch.rand(1) if float(y.abs().sum()) > 0 else y)

    state = torch.random.get_rng_state()
    trace(Noisy().double(), IMAGES)
    model_drawn = torch.random.get_rng_state()
    torch.random.set_rng_state(state)
    Noisy()
    assert torch.equal(torch.random.get_rng_state(), model_drawn)
