import pytest
import torch
import torchvision

import flyweight as fw
from flyweight.errors import CheckpointError
from flyweight.origin import Origin, origin_of
from flyweight.tensor_fit import affordable, require_fit, unique_tensors


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in unique_tensors(model)}


def origin(name, **arguments):
    return Origin(architecture=name, arguments=arguments)


def test_a_network_of_a_library_is_compared_without_memory():
    model = fw.create("torchvision/mobilenet_v3_small", num_classes=3)
    with affordable(origin_of(model), shapes_of(model), "a.safetensors"):
        pass
    other = fw.create("torchvision/mobilenet_v3_small", num_classes=4)
    with pytest.raises(CheckpointError, match=r"'classifier.3.weight' has shape \(4, 1024\)"):
        affordable(origin_of(model), shapes_of(other), "a.safetensors")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torchvision/mobilenet_v2", {"num_classes": 3, "width_mult": 30.0}),
        ("torchvision/resnet18", {"num_classes": 10**7}),
        ("timm/resnet18", {"num_classes": 10**8}),
    ],
)
def test_a_network_of_gigabytes_is_refused_before_it_is_built(name, arguments):
    with pytest.raises(CheckpointError, match="takes more than 256 MiB"):
        affordable(origin(name, **arguments), {"a": (3,)}, "a.safetensors")


def test_a_network_that_cannot_be_built_without_memory_is_built_within_a_bound():
    name = "torchvision/regnet_y_400mf"  # computes its widths with tensors
    small = origin(name, num_classes=3)
    with affordable(small, {"a": (3,)}, "a.safetensors"):
        model = fw.create(name, num_classes=3)
    assert isinstance(model, torchvision.models.RegNet)
    with (
        pytest.raises(CheckpointError, match="takes more than 256 MiB"),
        affordable(origin(name, num_classes=10**6), {"a": (3,)}, "a.safetensors"),
    ):
        fw.create(name, num_classes=10**6)


def test_the_first_difference_is_named():
    model = torch.nn.Linear(2, 3)
    require_fit(model, {"weight": (3, 2), "bias": (3,)}, "a")
    with pytest.raises(CheckpointError, match="with 1 difference, the first: 'bias' is missing"):
        require_fit(model, {"weight": (3, 2)}, "a")
