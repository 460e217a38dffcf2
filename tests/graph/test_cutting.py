import pytest
import torch
from torch import nn

from flyweight.graph.cutting import cut_tensors, numbers_in, set_numbers


def test_every_holder_and_the_attributes_follow():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=4))
    model.mask = torch.arange(4.0)
    gone = {0: (1, 2)}
    names = ["0.weight", "0.bias", *(f"1.{n}" for n in ("weight", "bias", "running_mean"))]
    wanted = model[0].weight[[0, 3]].detach().clone()
    removed = dict.fromkeys([*names, "1.running_var", "2.weight", "2.bias", "mask"], gone)
    cut_tensors(model, removed)
    assert torch.equal(model[0].weight, wanted)
    assert model[0].weight.requires_grad
    assert isinstance(model[0].weight, nn.Parameter)
    assert (model[0].out_channels, model[1].num_features) == (2, 2)
    assert (model[2].groups, model[2].in_channels, model[2].out_channels) == (2, 2, 2)
    assert torch.equal(model.mask, torch.tensor([0.0, 3.0]))
    assert model(torch.rand(1, 3, 2, 2)).shape == (1, 2, 2, 2)


def test_a_shared_tensor_is_cut_once_and_stays_shared():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
    model[1].weight = model[0].weight
    cut_tensors(model, {"0.weight": {0: (0,)}})
    assert model[0].weight is model[1].weight
    assert model[0].weight.shape == (3, 3)
    assert model[1].out_features == 3


def test_on_the_meta_device_under_its_context():
    with torch.device("meta"):
        model = nn.Linear(3, 4)
        cut_tensors(model, {"weight": {0: (0,), 1: (2,)}, "bias": {0: (0,)}})
    assert model.weight.shape == (3, 2)
    assert (model.in_features, model.out_features) == (2, 3)


class Numbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.one, self.on, self.share = 4, 1, True, 0.5
        self.sizes, self.names, self.window = [2, 6], ["a"], (7, 8)
        self.inner = nn.Linear(2, 3)


def test_numbers_are_found_and_set():
    model = nn.Sequential(Numbers())
    held = numbers_in(model[0])
    assert held == {"heads": 4, "sizes[0]": 2, "sizes[1]": 6, "window[0]": 7, "window[1]": 8}
    set_numbers(model, {"0.heads": 2, "0.sizes[1]": 3, "0.window[0]": 5})
    assert (model[0].heads, model[0].sizes, model[0].window) == (2, [2, 3], (5, 8))
    set_numbers(model[0], {"heads": 9})
    assert model[0].heads == 9


@pytest.mark.parametrize(
    "path", ["0.tails[0]", "0.names[0]", "0.on", "0.share", "0._parameters", "0.inner", "1.heads"]
)
def test_only_whole_numbers_are_set(path):
    with pytest.raises(AttributeError):
        set_numbers(nn.Sequential(Numbers()), {path: 2})
