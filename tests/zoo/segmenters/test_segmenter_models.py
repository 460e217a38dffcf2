import pytest
import torch

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.zoo.segmenters.segmenter_models import ROWS, deeplabv3p, unet


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_returns_scores_for_every_pixel(row):
    with torch.device("meta"):
        model = zoo.create(row.name, num_classes=4).eval()
        assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 4, 64, 96)
    assert row.task == "segment"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backbone": "resnett50"}, "Nearest: 'resnet50'"),
        ({"backbone": "hf-hub:someone/else"}, "a name of timm"),
        ({"backbone": "vit_tiny_patch16_224"}, "must give maps at stride 4"),
        ({"output_stride": 32}, "must be 8 or 16"),
        ({"num_classes": 0}, "num_classes must be"),
    ],
)
def test_what_deeplab_cannot_do(arguments, said):
    with torch.device("meta"), pytest.raises(ConfigError, match=said):
        deeplabv3p(**arguments)


@pytest.mark.parametrize("width", [0, "wide", 5.0])
def test_widths_that_cannot_be_meant(width):
    with pytest.raises(ConfigError, match="width must be"):
        unet(width=width)
