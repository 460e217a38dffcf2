import pytest
import torch
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.engine.optimizer import make_optimizer, parameter_groups, set_rate
from flyweight.errors import ConfigError


def test_only_weights_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    groups = parameter_groups(model, 5e-4)
    assert [group["weight_decay"] for group in groups] == [5e-4, 0.0]
    assert [id(p) for p in groups[0]["params"]] == [id(model[0].weight), id(model[3].weight)]
    assert len(groups[1]["params"]) == 4


def test_what_is_frozen_is_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    model[0].requires_grad_(False)
    assert [group["params"] for group in parameter_groups(model, 0.1)] == [[model[1].weight]]


def rates(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def test_rates_are_multiplied_by_name_and_the_last_pattern_counts():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    factors = {"0.*": 0.5, "*.bias": 2.0, "1.bias": 0.0}
    config = TrainConfig(steps=1, learning_rate=0.1, rate_factors=factors)
    optimizer = make_optimizer(model, config)
    wanted = {"0.weight": 0.05, "0.bias": 0.2, "1.weight": 0.1, "1.bias": 0.0}
    assert rates(optimizer, model) == wanted
    set_rate(optimizer, 1.0)
    assert rates(optimizer, model) == {name: 10 * rate for name, rate in wanted.items()}
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [5e-4, 0.0, 5e-4, 0.0]


def test_nothing_is_lost_without_decay():
    model = nn.Linear(2, 2)
    groups = parameter_groups(model, 0.0, {"weight": 0.5})
    assert [len(group["params"]) for group in groups] == [1, 1]


def test_a_pattern_that_fits_nothing_is_refused():
    config = TrainConfig(steps=1, rate_factors={"backbon.*": 0.1})
    with pytest.raises(ConfigError, match=r"Received: 'backbon\.\*'"):
        make_optimizer(nn.Linear(2, 2), config)


def test_rmsprop_is_paddles():
    model = nn.Linear(2, 2)
    config = TrainConfig(steps=1, optimizer="rmsprop", momentum=0.0, learning_rate=0.1)
    optimizer = make_optimizer(model, config)
    assert isinstance(optimizer, torch.optim.RMSprop)
    group = optimizer.param_groups[0]
    assert (group["alpha"], group["eps"], group["momentum"], group["lr"]) == (0.95, 1e-6, 0, 0.1)


def test_the_optimizer_is_the_one_asked_for():
    sgd = make_optimizer(nn.Linear(2, 2), TrainConfig(steps=1, momentum=0.8, learning_rate=0.5))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[1]["lr"]) == (0.8, 0.5)
    adamw = make_optimizer(nn.Linear(2, 2), TrainConfig(steps=1, optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.999)
    assert adamw.param_groups[0]["weight_decay"] == 5e-4
    assert adamw.param_groups[1]["weight_decay"] == 0.0
