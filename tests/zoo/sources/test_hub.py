from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from flyweight import zoo
from flyweight.errors import CheckpointError, ConfigError
from flyweight.pipeline import preflight
from flyweight.zoo.sources.hub import HUBS, hub_weights
from flyweight.zoo.sources.weights import fill


def test_the_words_are_known_before_anything_heavy_is_loaded():
    assert set(preflight.HUBS) == set(HUBS)


@pytest.mark.parametrize(
    ("word", "architecture", "said"),
    [
        ("timm", "torchvision/resnet18", "Give pretrain_weights: torchvision"),
        ("torchvision", "unet", "Give a file"),
        ("torchvision", "deeplabv3p", "Give pretrain_weights: timm"),
        ("timm", "yolov3_mobilenet_v3", "Give a file"),
    ],
)
def test_networks_of_another_house(word, architecture, said):
    with pytest.raises(ConfigError, match=said):
        hub_weights(word, architecture, {})


def test_timm_is_asked_for_safetensors_only(monkeypatch, tmp_path):
    path, asked = tmp_path / "w.safetensors", []
    source = zoo.create("timm/mobilenetv2_035", num_classes=7)
    save_file(source.state_dict(), path)

    def download(*arguments):
        asked.append(arguments)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    where, tensors = hub_weights("timm", "timm/mobilenetv2_050", {})
    assert asked == [("timm/mobilenetv2_050.lamb_in1k", "model.safetensors")]
    assert where == "timm/mobilenetv2_050.lamb_in1k"
    model = zoo.create("timm/mobilenetv2_035", num_classes=3)
    account = fill(model, tensors, where)
    assert [entry.name for entry in account.mismatched] == ["classifier.weight", "classifier.bias"]
    assert torch.equal(model.conv_stem.weight, source.conv_stem.weight)


def test_the_backbone_of_a_network_of_the_zoo(monkeypatch):
    asked = []
    monkeypatch.setitem(HUBS, "timm", lambda name: asked.append(name) or ("", {}))
    hub_weights("timm", "deeplabv3p", {"backbone": "resnet18"})
    hub_weights("timm", "deeplabv3p", {})
    assert asked == ["resnet18", "mobilenetv2_100"]


def test_torchvision_is_read_as_plain_tensors(monkeypatch):
    def load(url, **how):
        assert how["weights_only"]
        assert how["check_hash"]
        return {"a": torch.ones(1)}

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", load)
    where, tensors = hub_weights("torchvision", "torchvision/resnet18", {})
    assert "ResNet18" in where
    assert set(tensors) == {"a"}


def test_offline(monkeypatch):
    def fails(*_, **__):
        raise URLError("no route\nto host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fails)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    for word, name in (("torchvision", "resnet18"), ("timm", "resnet18")):
        with pytest.raises(CheckpointError, match=r"no route.*is online") as error:
            hub_weights(word, f"{word}/{name}", {})
        assert "\n" not in str(error.value)
