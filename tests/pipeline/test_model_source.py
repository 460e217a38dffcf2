from pathlib import Path

import pytest

from flyweight.config.reading import load_config
from flyweight.errors import ConfigError
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import build_model

SMALL = ("width=0.1", "input_size=64", "data.size=64")
CONFIG = load_config("demo_digits", SMALL)[1]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Saver(CONFIG, tuple("0123456789"), "detect")(build_model(CONFIG), {}, Path("a.safetensors"))


def test_weights_are_enough(saved):
    name, path, loaded = ModelSource(weights="a").open()
    assert (name, path) == ("a", Path("a.safetensors"))
    assert loaded.preprocessing == CONFIG.preprocessing
    assert ModelSource(overrides=("weights=a",)).find() == ("a", Path("a.safetensors"))


def test_overrides_take_precedence_over_what_was_saved(saved):
    told = ("mean=[0, 0, 0]", "detect.suppression.keep=7")
    name, _, loaded = ModelSource("demo_digits", (*SMALL, *told), "a").open()
    assert name == "demo_digits"
    assert loaded.preprocessing.mean == (0, 0, 0)
    assert loaded.preprocessing.std == CONFIG.preprocessing.std
    assert loaded.task.config.suppression.keep == 7


def test_what_is_missing_is_said(saved):
    with pytest.raises(ConfigError, match="Received neither -c nor -o weights="):
        ModelSource().find()
    with pytest.raises(ConfigError, match=r"Received 'width='\. Add: -c CONFIG"):
        ModelSource(overrides=("width=0.1", "weights=a")).find()
