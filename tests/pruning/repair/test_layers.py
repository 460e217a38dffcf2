import torch
from torch import nn

from flyweight.graph import trace
from flyweight.pruning import plan, prune
from flyweight.pruning.repair.layers import surroundings


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.start = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.body, self.norm = nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.each, self.last = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.grow = nn.ConvTranspose2d(6, 4, 2)
        self.twice = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4 * 25, 2)

    def forward(self, x):
        x = self.norm(self.body(self.start(self.stem(x)).relu())).relu_()
        x = self.grow(self.last(self.each(x)))
        return self.head(self.twice(self.twice(x).relu()).flatten(1))


def around(model, ratios, side=8):
    torch.manual_seed(0)
    images = torch.rand(2, 3, side, side)
    made = plan(trace(model, (images,)), ratios)
    small = prune(model, made)
    return small, made, surroundings(model, small, made, (images,))


def test_what_reads_and_what_follows():
    small, made, found = around(Net(), 0.5)
    assert list(found.consumers) == ["body.weight", "head.weight"]
    body, head = found.consumers.values()
    assert body.norm is small.norm
    assert body.bias is None
    assert head.bias is small.head.bias
    assert head.norm is None
    assert body.read == made.keep["stem.weight"]
    assert sorted(body.read + body.removed) == list(range(8))
    assert body.made == made.keep["body.weight"]
    assert head.made == (0, 1)
    assert len(head.read) == small.head.in_features
    assert list(found.norms) == ["norm", "last"], "nothing has changed that reaches 'start'"
    assert found.order == ("body.weight", "norm", "last", "head.weight")


def test_what_is_left_out_and_why():
    _, _, found = around(Net(), 0.5)
    other, shared = found.skipped
    assert other.startswith("'grow.weight' is read by conv_transpose2d")
    assert shared == "'twice.weight' is read more than once in a run"


def test_layers_that_lose_only_outputs_are_no_consumers():
    _, _, found = around(Net(), {"body.weight": 0.5})
    assert list(found.consumers) == []
    _, _, found = around(Net(), {"stem.weight": 0.5})
    assert list(found.consumers) == ["body.weight"]
    assert found.consumers["body.weight"].made == tuple(range(6))


def test_weights_that_are_computed_first_are_left_out():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, 2 * self.weight, self.bias)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Doubled(4, 5, 1), nn.Conv2d(5, 2, 1))
    _, _, found = around(model, {"0.weight": 0.5})
    assert found.consumers == {}
    assert "'1.weight'" in found.skipped[0]


def test_a_constant_goes_where_there_is_room():
    small, _, found = around(Net(), 0.5)
    body, head = found.consumers.values()
    before = small.norm.running_mean.clone(), small.head.bias.detach().clone()
    with torch.no_grad():
        assert body.add_constant(torch.ones(3)) == (
            "the running mean of the normalisation after it"
        )
        assert head.add_constant(torch.ones(2)) == "its bias"
    assert torch.equal(small.norm.running_mean, before[0] - 1)
    assert torch.equal(small.head.bias.detach(), before[1] + 1)
