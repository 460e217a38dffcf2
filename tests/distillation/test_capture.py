import copy
import pickle

import pytest
import torch
from tests.distillation.networks import Classifier, Segmenter, seeded
from torch import nn

from flyweight.distillation.capture import Capture
from flyweight.distillation.seen_tensors import see_network
from flyweight.errors import TrainingError


def captured(model, *names):
    seen = see_network(model, torch.zeros(1, 3, 32, 32))
    return Capture(seen.find(name) for name in names)


def test_features_are_those_of_the_run_with_their_gradients():
    model = seeded(Classifier).train()
    capture = captured(model, "layer0.1.relu.relu#2", "stem.conv2d")
    capture.attach(model)
    images = torch.randn(2, 3, 32, 32)
    returned = model(images)
    assert capture.returned is returned
    torch.testing.assert_close(capture.features["stem.conv2d"], model.stem(images))
    capture.features["layer0.1.relu.relu#2"].sum().backward()
    assert model.stem.weight.grad.abs().sum() > 0
    assert list(capture.outputs()) == ["output"]
    # The next run replaces them.
    model(torch.zeros(1, 3, 32, 32))
    assert len(capture.features["stem.conv2d"]) == 1
    capture.detach()
    assert capture.features == {}
    assert not any(module._forward_hooks for module in model.modules())


def test_within_a_context_hooks_are_there_and_afterwards_not():
    model = seeded(Classifier)
    capture = captured(model, "stem.conv2d")
    with capture.on(model):
        model(torch.zeros(1, 3, 32, 32))
    assert set(capture.features) == {"stem.conv2d"}
    assert not any(module._forward_hooks for module in model.modules())


def test_a_watched_model_can_be_copied_and_the_copy_is_not_watched():
    model = seeded(Classifier)
    capture = captured(model, "stem.conv2d")
    capture.attach(model)
    model(torch.randn(2, 3, 32, 32))
    twin = copy.deepcopy(model)
    twin(torch.randn(7, 3, 32, 32))
    assert len(capture.features["stem.conv2d"]) == 2
    pickle.loads(pickle.dumps(model))(torch.randn(7, 3, 32, 32))
    assert len(capture.features["stem.conv2d"]) == 2


def test_results_in_containers_are_found_at_their_place():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Pair()

        def forward(self, x):
            first, second = self.inner(x)["both"]
            return first + second

    class Pair(nn.Module):
        def forward(self, x):
            return {"both": (x * 2, x * 3)}

    model = Two()
    seen = see_network(model, torch.ones(1, 3, 4, 4))
    assert [one.place for one in seen.tensors][:2] == ["output['both'][0]", "output['both'][1]"]
    capture = Capture(seen.tensors[:2])
    with capture.on(model):
        model(torch.ones(1, 3, 4, 4))
    assert [one.mean().item() for one in capture.features.values()] == [2, 3]


def test_a_network_without_the_modules_is_refused():
    with pytest.raises(TrainingError, match="without 'stem'"):
        captured(seeded(Classifier), "stem.conv2d").attach(Segmenter())
