from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from flyweight.errors import ExportError, GraphError
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


def plain(kind):
    layer = nn.Conv2d(3, 4, 3)
    if kind == "weight norm":
        return weight_norm(layer)
    if kind == "spectral norm":
        return spectral_norm(layer)
    if kind == "masks":
        return prune.l1_unstructured(layer, "weight", 0.5)
    return getattr(parametrizations, kind)(layer)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    "kind",
    ["weight norm", "spectral norm", "masks", "weight_norm", "spectral_norm", "orthogonal"],
)
def test_computed_weights_are_stored(kind):
    torch.manual_seed(0)
    model = nn.Sequential(plain(kind), nn.ReLU())
    model(torch.rand(1, 3, 4, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = InferenceNetwork(model, None)
    assert list(network.network.state_dict()) == ["0.bias", "0.weight"]
    torch.testing.assert_close(network(*IMAGES)[0], model.eval()(*IMAGES))
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_nothing_is_compiled_or_parallel_in_the_copy():
    inner = nn.DataParallel(nn.Conv2d(3, 4, 1))
    model = nn.Sequential(torch.compile(inner, backend="eager"), nn.ReLU())
    network = InferenceNetwork(model, None)
    torch.testing.assert_close(network(*IMAGES)[0], inner.module(*IMAGES).relu())


@dataclass(slots=True)
class Answer:
    boxes: torch.Tensor
    more: object


class Nested(nn.Module):
    def forward(self, images):
        found = images.mean((2, 3))
        return Answer(found, {"a": None, "b": [found > 0.5, 3]})


def test_outputs_are_found_wherever_they_are():
    network = InferenceNetwork(Nested(), None)
    assert list(network.outputs(IMAGES)) == [".boxes", ".more['b'][0]"]
    assert [tensor.dtype for tensor in network(*IMAGES)] == [torch.float32, torch.bool]


class Silent(nn.Module):
    def forward(self, images):
        return {"count": len(images)}


class Late(nn.Module):
    def forward(self, images):
        return (image for image in images)


def test_models_that_return_nothing_that_can_be_followed_are_refused():
    network = InferenceNetwork(Silent(), None)
    with pytest.raises(ExportError, match="must return tensors to be exported"):
        network.output_names(IMAGES, ModelCard(name="a"), ())
    network = InferenceNetwork(Late(), None)
    with pytest.raises(GraphError, match="a generator"):
        network.output_names(IMAGES, ModelCard(name="a"), ())


def test_a_model_that_does_not_run_on_the_example_is_refused_in_one_line():
    network = InferenceNetwork(nn.Conv2d(4, 2, 1), None)
    with pytest.raises(ExportError, match="must run on the example") as caught:
        network.output_names(IMAGES, ModelCard(name="a"), ())
    assert "\n" not in str(caught.value)
