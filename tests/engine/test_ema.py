import pytest
import torch
from torch import nn

from flyweight.engine.ema import Ema, warmed_decay


def test_the_average_is_that_of_the_formula():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    ema = Ema(model, 0.5)
    mean = model[0].weight.item()
    variance = float(model[1].running_var)
    for step in range(20):
        with torch.no_grad():
            model[0].weight.fill_(step * step)
            model[1].running_var.fill_(step + 2.0)
            model[1].num_batches_tracked.fill_(step)
        ema.update(model, step)
        decay = min(0.5, (2 + step) / (11 + step))
        mean = decay * mean + (1 - decay) * step * step
        variance = decay * variance + (1 - decay) * (step + 2.0)
    assert ema.model[0].weight.item() == pytest.approx(mean, rel=1e-5)
    assert float(ema.model[1].running_var) == pytest.approx(variance, rel=1e-5)
    assert int(ema.model[1].num_batches_tracked) == 19


def test_the_average_neither_trains_nor_touches_the_model():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    ema = Ema(model, 0.9)
    model.train()
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    with torch.no_grad():
        model.weight.add_(1.0)
    assert torch.equal(ema.model.weight, before)
    ema.update(model, 0)
    assert torch.equal(model.weight, before + 1.0)


def test_the_decay_warms_up():
    found = [warmed_decay(0.9998, step) for step in (0, 8, 998, 10**6)]
    assert found == pytest.approx([2 / 11, 10 / 19, 1000 / 1009, 0.9998], rel=1e-12)
