import pytest
import torch
from torch import nn

from flyweight.graph.dispatch import evaluating
from flyweight.replay.lockstep import Lockstep, sole_readers, watch


class Net(nn.Module):
    """A residual, an activation in place, and a branch that outlives several layers."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.two, self.three = nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.norm(self.one(x)).relu_()
        y = self.two(x).relu_() + x
        return self.three(y) + x.mean()


class Curious(Net):
    """Looks at values that are no longer needed when the third layer runs."""

    def forward(self, x):
        first = self.one(x)
        limit = max(first.flatten().tolist())
        del first
        return self.three(self.two(self.norm(self.one(x)).clamp(max=limit)))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [(torch.randn(n, 3, 6, 6),) for n in (2, 3)]


def inputs_of(model, batches):
    """What every convolution reads, seen by module hooks."""
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        for layer in (model.two, model.three)
    ]
    with torch.no_grad():
        for batch in batches:
            model(*batch)
    for hook in hooks:
        hook.remove()
    return [torch.cat(seen[place::2]) for place in (0, 1)]


@pytest.mark.parametrize("kind", [Net, Curious])
@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_layers_are_reached_one_after_the_other(kind, keep_bytes, batches):
    model = kind().eval()
    second, third = inputs_of(model, batches)
    with evaluating(model):
        steps = Lockstep(model, batches, keep_bytes)
        found = [call["input"] for call in steps.until(model.two.weight)]
        assert torch.equal(torch.cat(found), second)
        model.two.weight.data.mul_(2)
        found = [call["input"] for call in steps.until(model.three.weight)]
    assert not torch.equal(torch.cat(found), third)
    assert torch.equal(torch.cat(found), inputs_of(model, batches)[1])


def test_every_operation_is_executed_once(batches):
    model = Net()
    with evaluating(model):
        steps = Lockstep(model, batches)
        counts = []
        for tensor in (model.norm.running_mean, model.two.weight, model.three.weight):
            list(steps.until(tensor))
            counts.append(steps.executed)
        forgetful = Lockstep(model, batches, keep_bytes=0)
        for tensor in (model.norm.running_mean, model.two.weight, model.three.weight):
            list(forgetful.until(tensor))
    # one | norm, relu | two, relu, add; twice, since there are two batches
    assert counts == [2, 6, 12]
    assert forgetful.executed == 2 + 6 + 12


def test_a_tensor_that_is_never_taken(batches):
    model = Net()
    model.spare = nn.Parameter(torch.zeros(1))
    with evaluating(model), pytest.raises(RuntimeError, match="never takes"):
        list(Lockstep(model, batches).until(model.spare))


def test_watching_stops_after_the_last(batches):
    model, told = Net(), []
    tensors = {"one": model.one.weight, "two": model.two.weight, "three": model.three.weight}
    with evaluating(model):
        assert watch(model, batches[0], tensors, told.append, last="two") is None
        assert [(read.tensor, read.op) for read in told] == [("one", "conv2d"), ("two", "conv2d")]
        assert told[1].arguments["padding"] == "same"
        assert told[0].result.shape == (2, 4, 4, 4)
        whole = watch(model, batches[0], tensors, told.append)
        assert torch.equal(whole, model(*batches[0]))


def test_sole_readers(batches):
    class Branches(Net):
        def forward(self, x):
            first = self.one(x)
            second = self.two(self.norm(first))
            return second, self.three(self.other(second)), first.mean()

    model = Branches()
    model.other = nn.BatchNorm2d(4)
    tensors = {"one": model.one.weight, "two": model.two.weight}
    with evaluating(model):
        reads, norms = sole_readers(model, batches[0], tensors)
        assert [read.tensor for read in reads] == ["one", "two"]
        assert norms == {}, "one result is read twice, the other is an output as well"
        _, norms = sole_readers(plain := Net().eval(), batches[0], {"one": plain.one.weight})
        assert norms["one"] is plain.norm.running_mean


def test_modes_come_back():
    model = Net()
    model.norm.eval()
    with evaluating(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
    assert model.one.training
    assert not model.norm.training
