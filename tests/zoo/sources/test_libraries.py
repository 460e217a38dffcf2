import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.graph import trace
from flyweight.origin import origin_of
from flyweight.zoo.sources.libraries import MainOutput, arguments_of, library_model


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("timm/mobilenetv2_035", "classify"),
        ("timm/mobilenetv2_050.lamb_in1k", "classify"),
        ("torchvision/squeezenet1_1", "classify"),
        ("torchvision/lraspp_mobilenet_v3_large", "segment"),
    ],
)
def test_a_network_by_name(name, task):
    assert zoo.spec_of(name).task == task
    model = zoo.create(name, num_classes=3).eval()
    outputs = model(torch.zeros(1, 3, 64, 64))
    assert outputs.shape == ((1, 3) if task == "classify" else (1, 3, 64, 64))
    assert origin_of(model).architecture == name
    assert origin_of(model).arguments["num_classes"] == 3


def test_second_heads_are_left_out():
    model = zoo.create("torchvision/googlenet", num_classes=3).train()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def test_the_wrapper_of_named_outputs_is_plain():
    class Named(nn.Module):
        def forward(self, images):
            return {"out": images * 2, "aux": images}

    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(MainOutput(Named())(images), images * 2)
    graph = trace(
        zoo.create("torchvision/lraspp_mobilenet_v3_large").eval(), (images.repeat(1, 1, 16, 16),)
    )
    assert sum(group.prunable for group in graph.groups.values()) == 30


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet19", "Nearest: 'timm/resnet18'"),
        ("timm/resnet18.tv_in2k", "Nearest: 'timm/resnet18.tv_in1k'"),
        ("timm/hf-hub:someone/else", "must be one that it lists"),
        ("timm/local-dir:/tmp", "must be one that it lists"),
        ("torchvision/resnet19", "Nearest: 'torchvision/resnet18'"),
        ("torchvision/fasterrcnn_resnet50_fpn", "must be one that it lists"),
        ("keras/resnet18", "A model must be one of the zoo"),
    ],
)
def test_names_that_the_libraries_do_not_list(name, said):
    with pytest.raises(ConfigError, match=said):
        zoo.create(name)


@pytest.mark.parametrize(
    "argument", ["pretrained", "checkpoint_path", "pretrained_cfg", "cache_dir"]
)
def test_arguments_that_would_read_something(argument):
    with pytest.raises(ConfigError, match=f"Received: '{argument}'"):
        zoo.create("timm/resnet18", **{argument: "x"})


def test_arguments_that_a_network_does_not_take():
    with pytest.raises(ConfigError, match=r"img_size=64 for 'timm/resnet18': .*Correct model_args"):
        zoo.create("timm/resnet18", img_size=64)
    with pytest.raises(ConfigError, match=r"dropout=0\.5"):
        zoo.create("torchvision/resnet18", dropout=0.5)


def test_without_the_third_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'flyweight\[smp\]'"):
        zoo.create("smp/unet-resnet18")


def test_with_the_third_library(monkeypatch):
    asked = {}

    def create_model(arch, **arguments):
        asked.update(arguments, arch=arch)
        return nn.Conv2d(3, arguments["classes"], 1)

    stand_in = SimpleNamespace(
        MODEL_ARCHITECTURES_MAPPING={"unet": 1, "fpn": 1},
        encoders=SimpleNamespace(get_encoder_names=lambda: ["resnet18"]),
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", stand_in)
    task, build = library_model("smp/unet-tu-mobilenetv2_100")
    assert (task, arguments_of(build)) == ("segment", {"num_classes": 21})
    build(num_classes=2)
    wanted = {"arch": "unet", "encoder_name": "tu-mobilenetv2_100", "encoder_weights": None}
    assert asked == {**wanted, "classes": 2}
    with pytest.raises(ConfigError, match="Nearest: 'smp/unet-resnet18'"):
        library_model("smp/unet-resnet19")
    with pytest.raises(ConfigError, match="Nearest: 'smp/unet'"):
        library_model("smp/unett-resnet18")
