import torch
from torch import nn

import flyweight as fw
from flyweight.sensitivity.evaluator import Mean
from flyweight.sensitivity.fast.prior import prior_of
from flyweight.sensitivity.scanned_cuts import Cuts


def network():
    """Return a network whose second layer does nothing to its result."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last).eval()


def mean(outputs, batch):
    return outputs.flatten(1).mean(1)


def test_a_layer_that_changes_nothing_is_worth_nothing():
    model, batch = network(), (torch.randn(4, 3, 2, 2),)
    graph = fw.trace(model, batch)
    plans = Cuts((0.25, 0.5, 0.75)).plans(graph)
    before = [weight.clone() for weight in model.parameters()]
    with torch.inference_mode():
        assert prior_of(graph, model, Mean(mean), plans, batch) == {
            "0.weight": 0.0,
            "2.weight": 0.0,
        }
    nn.init.ones_(model[4].weight)
    found = prior_of(graph, model, Mean(mean), plans, batch)
    assert min(found.values()) > 0
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(before[0], model[0].weight)


def test_a_judge_without_a_loss_gives_none():
    class Silent:
        primary = "mean"

    assert prior_of(None, None, Silent(), {}, None) is None
