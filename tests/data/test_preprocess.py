import pytest
from pydantic import ValidationError

from flyweight.data.preprocess import Preprocessing


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
