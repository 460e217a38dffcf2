import pytest
import torch
from torch import nn

from flyweight.graph import trace, trial_cuts
from flyweight.pruning import plan, prune
from flyweight.pruning.verification import largest_error

TOKENS = (torch.rand(1, 5, 12, dtype=torch.float64),)


class Attention(nn.Module):
    """Self-attention that spells its sizes in one of several ways."""

    def __init__(self, way, width=12, heads=3):
        super().__init__()
        self.way, self.heads, self.head_width = way, heads, width // heads
        self.inner = width
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, t, c = x.shape
        last = {"attributes": self.head_width, "rest": -1, "tied": c // self.heads}[self.way]
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, last).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2)
        width = {"attributes": self.inner, "rest": self.heads * self.head_width, "tied": c}[
            self.way
        ]
        return self.out(mixed.reshape(n, t, width))


class Blocks(nn.Module):
    def __init__(self, way, depth=2):
        super().__init__()
        self.stem = nn.Linear(12, 12)
        self.blocks = nn.ModuleList(Attention(way) for _ in range(depth))
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def cut_and_compare(model, args, ratio=0.5, **options):
    graph = trace(model, args)
    made = plan(graph, ratio, **options)
    small = prune(model, made)
    fresh = tuple(torch.rand_like(arg) for arg in args)
    assert largest_error(model, small, made, fresh) < 1e-12
    assert trace(small, args).cost() == made.cost(graph)
    return graph, made, small


@pytest.mark.parametrize("way", ["attributes", "rest"])
def test_heads_leave_and_the_numbers_follow(way):
    model = Blocks(way).double()
    graph, made, small = cut_and_compare(model, TOKENS)
    assert graph.groups["blocks.0.qkv.weight"].size == 3
    numbers = {"heads": 1, "inner": 4} if way == "attributes" else {"heads": 1}
    assert made.numbers == {
        f"blocks.{block}.{name}": value for block in range(2) for name, value in numbers.items()
    }
    assert [block.heads for block in small.blocks] == [1, 1]
    assert [block.heads for block in model.blocks] == [3, 3]
    assert small.stem.out_features == 6


def test_widths_that_the_code_takes_for_one_are_tied():
    graph, made, small = cut_and_compare(Blocks("tied").double(), TOKENS)
    assert list(graph.prunable()) == ["stem.weight"]
    assert graph.groups["stem.weight"].size == 3
    assert small.stem.out_features == 4
    assert [block.heads for block in small.blocks] == [1, 1]
    assert small.blocks[1].qkv.weight.shape == (12, 4)
    assert made.groups["stem.weight"].keep in {(0,), (1,), (2,)}


class Splitting(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.sizes = kind([2, 4])
        self.first, self.one, self.two = nn.Conv2d(3, 6, 1), nn.Conv2d(2, 3, 1), nn.Conv2d(4, 3, 1)
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        left, right = self.first(x).split(list(self.sizes), 1)
        return self.last(self.one(left) + self.two(right))


IMAGE = (torch.rand(1, 3, 4, 4, dtype=torch.float64),)


@pytest.mark.parametrize("kind", [list, tuple])
def test_items_of_lists_and_tuples_follow(kind):
    model = Splitting(kind).double()
    _, made, small = cut_and_compare(model, IMAGE)
    assert made.numbers == {"sizes[0]": 1, "sizes[1]": 2}
    assert small.sizes == kind([1, 2])
    assert model.sizes == kind([2, 4])


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.border = 2
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(x[:, self.border :] + x[:, : self.border].repeat(1, 2, 1, 1))


def test_bounds_of_slices_follow():
    _, made, small = cut_and_compare(Windows().double(), IMAGE)
    assert made.numbers == {"border": 1}
    assert small.first.out_channels == 3


def test_a_window_that_moves_is_noticed():
    class Middle(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.last(self.first(x)[:, 2:5])

    graph = trace(Middle().double(), IMAGE)
    # Channels before the window may not leave: it would slide over others, of the same number.
    assert "slice in the model's forward" in graph.groups["first.weight"].reason
    assert [group.size for group in graph.prunable().values()] in ([3], [])
    cut_and_compare(Middle().double(), IMAGE)


def test_only_what_is_in_the_way_is_frozen():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
            self.one, self.two = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            return self.one(self.first(x).view(1, 6, 4, 4)) + self.two(self.other(x))

    graph = trace(Partly().double(), IMAGE)
    assert "view in the model's forward" in graph.groups["first.weight"].reason
    assert list(graph.prunable()) == ["other.weight"]


def test_numbers_are_set_in_every_module_of_the_class_at_once():
    model = Blocks("rest", depth=12).double()
    runs = []
    original = trial_cuts._Trial._run

    def counted(self, *args, **kwargs):
        runs.append(1)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_cuts._Trial, "_run", counted)
        graph = trace(model, TOKENS)
    assert len(graph.numbers) == 12
    assert len(runs) <= 6


def test_a_model_that_asks_for_values_is_tried_on_them():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 6
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            full = self.first(x).view(1, self.width, 4, 4)
            return self.last(full) if bool(x.sum() > 0) else full

    _, made, small = cut_and_compare(Gated().double(), IMAGE)
    assert made.numbers == {"width": 3}
    assert small.width == 3


def test_numbers_survive_json():
    graph = trace(Windows().double(), IMAGE)
    made = plan(graph, 0.5)
    again = type(made).from_json(made.to_json())
    assert again == made
    assert again.numbers == {"border": 1}


class Table(nn.Module):
    """Never called: another module's forward uses a method of it."""

    def __init__(self):
        super().__init__()
        self.width = 6
        self.values = nn.Parameter(torch.rand(6))

    def read(self):
        return self.values.view(1, self.width, 1, 1)


def test_numbers_of_modules_used_by_their_methods_follow():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = Table()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.last(self.first(x) * self.table.read())

    _, made, small = cut_and_compare(Reading().double(), IMAGE)
    assert made.numbers == {"table.width": 3}
    assert small.table.width == 3


def test_positions_that_values_choose_say_nothing_about_sizes():
    class Pasting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            found = self.last(self.first(x))
            edge = 1 + int(1e6 * found.abs().max()) % 7
            canvas = torch.zeros(1, 1, 8, 8, dtype=x.dtype)
            canvas[:, :, edge:] = 1
            return torch.cat([found.flatten(), canvas.flatten()])

    torch.manual_seed(0)
    graph = trace(Pasting().double(), (torch.rand(1, 3, 8, 8, dtype=torch.float64),))
    assert list(graph.prunable()) == ["first.weight"]


class Shifted(nn.Module):
    """Shifts parts of the channels in time; the code counts them from the width."""

    def __init__(self):
        super().__init__()
        self.frames = 4
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
        self.c = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.a(x)
        n, c, h, w = x.shape
        x = x.view(n // self.frames, self.frames, c, h, w)
        fold, moved = c // 4, torch.zeros_like(x)
        moved[:, :-1, :fold] = x[:, 1:, :fold]
        moved[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        moved[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return self.c(self.b(moved.view(n, c, h, w)).relu())


def test_the_ends_of_a_slice_are_never_tied():
    graph = trace(Shifted(), (torch.rand(8, 3, 4, 4),))
    assert graph.groups["b.weight"].prunable
    parts = [group for name, group in graph.groups.items() if name.startswith("a.weight")]
    assert parts
    for group in parts:
        assert group.reason is not None or prune(Shifted(), plan(graph, {group.name: 0.5}))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.into, self.out = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.out(self.into(x).relu())


def test_blocks_of_pytorch_are_frozen_in_every_place_at_once():
    model = nn.Sequential(*(Layer() for _ in range(8))).double()
    settled = []
    original = trial_cuts._Trial._settle_walk

    def counted(self):
        settled.append(1)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_cuts._Trial, "_settle_walk", counted)
        graph = trace(model, TOKENS)
    assert [group.name for group in graph.prunable().values()] == [
        f"{place}.into.weight" for place in range(8)
    ]
    assert len(settled) <= 3
