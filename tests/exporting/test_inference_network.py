from collections import namedtuple

import pytest
import torch
from torch import nn

from flyweight.errors import ExportError
from flyweight.exporting.inference_network import InferenceNetwork, as_float32
from flyweight.exporting.model_card import ModelCard

IMAGES = (torch.rand(1, 3, 4, 4),)
Pair = namedtuple("Pair", ["boxes", "scores"])


class Two(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, images):
        answers = images.mean((2, 3)), images.amax((2, 3))
        return self.kind(*answers) if self.kind is Pair else answers


def names(kind=tuple, card=None, given=()):
    network = InferenceNetwork(Two(kind), None)
    return network.output_names(IMAGES, card or ModelCard(name="a"), given)


def test_names_of_outputs():
    assert names() == ("output_0", "output_1")
    assert names(Pair) == ("boxes", "scores")
    assert names(card=ModelCard(name="a", outputs="decoded")) == ("boxes", "scores")
    assert names(given=("a", "b")) == ("a", "b")
    with pytest.raises(ExportError, match=r"returns 2 outputs.*Received: a, a\."):
        names(given=("a", "a"))


def test_the_copy_is_for_inference_and_the_model_is_untouched():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).half().train()
    network = InferenceNetwork(model, nn.Flatten())
    assert not any(module.training for module in network.modules())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert model.training
    assert next(model.parameters()).dtype == torch.float16
    (found,) = network.outputs(IMAGES).values()
    assert found.shape == (1, 64)


def test_whole_numbers_keep_their_type():
    assert as_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float32
    assert as_float32(torch.zeros(1, dtype=torch.int64)).dtype == torch.int64
