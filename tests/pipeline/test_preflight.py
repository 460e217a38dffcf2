from pathlib import Path

import pytest

from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError, ConfigError, DataError
from flyweight.pipeline.preflight import (
    checkpoint_path,
    ends_of,
    require_end,
    require_paths,
    weights_path,
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model_final.safetensors"
    path.touch()
    return path


def config_of(*overrides):
    return load_config("demo_digits", overrides)[1]


def test_weights_with_and_without_their_ending(saved):
    bare = saved.with_suffix("")
    assert weights_path(str(bare)) == weights_path(str(saved)) == saved
    dotted = saved.with_name("v1.5.safetensors")
    dotted.touch()
    assert weights_path(str(dotted)[: -len(".safetensors")]) == dotted


@pytest.mark.parametrize("name", ["none", "."])
def test_weights_that_are_not_there(name):
    with pytest.raises(CheckpointError, match=rf"Received '{name}', which is no file"):
        weights_path(name)


def test_which_checkpoint(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    with pytest.raises(ConfigError, match=r"'output/demo/best_model\.safetensors' does not exist"):
        checkpoint_path("demo", config_of(), "")
    best = Path("output/demo/best_model.safetensors")
    best.parent.mkdir(parents=True)
    best.touch()
    assert checkpoint_path("demo", config_of(), "") == best
    assert checkpoint_path("demo", config_of("weights=model_final"), "") == Path(saved.name)
    other = saved.rename("other.safetensors")
    assert checkpoint_path("demo", config_of("weights=model_final"), "other") == Path(other.name)


def test_paths_of_a_config(saved):
    require_paths(config_of())
    require_paths(config_of(f"pretrain_weights={saved}"))
    require_paths(config_of("data.format=coco", f"data.root={saved.parent}"))
    with pytest.raises(CheckpointError, match="Received 'none'"):
        require_paths(config_of("pretrain_weights=none"))
    with pytest.raises(DataError, match=r"A COCO set must be a folder\. Received 'none'"):
        require_paths(config_of("data.format=coco", "data.root=none"))


def test_ends():
    require_end("raw")
    assert ends_of("detect")[0] == "detections"
    assert ends_of("segment") == ("decoded", "raw")
    with pytest.raises(ConfigError, match=r"one of decoded, raw\. Received 'detections'"):
        require_end("detections", ends_of("classify"))
    with pytest.raises(ConfigError, match=r"Received 'decodde'\. Nearest: 'decoded'"):
        require_end("decodde")
