import copy

import pytest
import torch
from tests.engine import toy

from flyweight.config.training import TrainConfig
from flyweight.engine.estimate import first_line, seconds_of_a_step
from flyweight.engine.run import Sizes


def test_a_trial_changes_nothing():
    model = toy.toy_model().train()
    before = copy.deepcopy(model.state_dict())
    assert seconds_of_a_step(model, toy.ToyTask(), toy.toy_batch(0, 1)) > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_trial_that_fails_leaves_the_error_to_the_first_step():
    assert seconds_of_a_step(torch.nn.Linear(3, 3), toy.ToyTask(), toy.toy_batch(0)) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.5, ", about 0:00:06")], ids=["unknown", "known"]
)
def test_first_line(seconds, words):
    config = TrainConfig(steps=10, batch_size=2, evaluate_every=5)
    found = first_line(Sizes(10, 9, 1), config, 10, torch.device("cpu"), seconds)
    start = "training: 10 images, 1 class, 10 steps of 2 images (2 epochs), cpu with "
    assert found.startswith(start)
    assert found.endswith(words)
    assert found.count("about") == bool(words)
