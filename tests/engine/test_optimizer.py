import torch
from torch import nn

from flyweight.engine.config import TrainConfig
from flyweight.engine.optimizer import make_optimizer, parameter_groups


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


def test_the_optimizer_is_the_one_asked_for():
    sgd = make_optimizer(nn.Linear(2, 2), TrainConfig(steps=1, momentum=0.8, learning_rate=0.5))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[1]["lr"]) == (0.8, 0.5)
    adamw = make_optimizer(nn.Linear(2, 2), TrainConfig(steps=1, optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.999)
    assert adamw.param_groups[0]["weight_decay"] == 5e-4
    assert adamw.param_groups[1]["weight_decay"] == 0.0
