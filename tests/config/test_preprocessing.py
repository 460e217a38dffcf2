import pytest
from pydantic import ValidationError

from flyweight.config.preprocessing import Preprocessing


def test_defaults_are_those_of_imagenet():
    preprocessing = Preprocessing(height=608, width=416)
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)
    assert preprocessing.interpolation == "bicubic"
    assert Preprocessing.model_validate_json(preprocessing.model_dump_json()) == preprocessing


@pytest.mark.parametrize("wrong", [{"height": 0}, {"interpolation": "magic"}, {"heigth": 3}])
def test_refuses(wrong):
    with pytest.raises(ValidationError):
        Preprocessing(**{"height": 32, "width": 32, **wrong})


@pytest.mark.parametrize(
    ("fit", "resized", "scale"),
    [
        ("stretch", (320, 160), (4.0, 1.5)),
        ("pad", (120, 160), (4.0, 4.0)),
        ("crop", (427, 569), (640 / 569, 480 / 427)),
    ],
)
def test_a_picture_comes_to_the_inputs_size(fit, resized, scale):
    preprocessing = Preprocessing(height=320, width=160, fit=fit, crop_share=0.75)
    assert preprocessing.resized(480, 640) == resized
    assert preprocessing.scale(480, 640) == scale


def test_the_mean_is_a_colour_whatever_its_range_and_order():
    assert Preprocessing(height=8, width=8, mean=(0, 0.5, 1)).mean_colour == (0, 128, 255)
    caffe = Preprocessing(height=8, width=8, mean=(104, 117, 123), value_range=255, channels="bgr")
    assert caffe.mean_colour == (123, 117, 104)
