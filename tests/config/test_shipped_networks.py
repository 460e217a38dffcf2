from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.config.reading import known_configs, load_config
from flyweight.config.shipped_networks import SHIPPED, shipped_network
from flyweight.engine.evaluate import evaluate
from flyweight.pipeline.inputs import open_val, task_of, val_batches

NAME = "digit_detector"


def shipped(*overrides):
    return shipped_network(NAME, load_config(NAME, overrides)[1])


def test_every_shipped_network_is_that_of_a_preset():
    for name, overrides in SHIPPED.items():
        assert name in known_configs()
        label, config = load_config(name, overrides)
        path = shipped_network(label, config)
        assert path is not None
        found = read(path)
        assert found.origin.architecture == config.model
        assert dict(found.origin.arguments) == config.arguments
        assert found.plans == ()


def test_it_is_small_and_loads_as_float32():
    path = shipped()
    assert path.stat().st_size < 3.5 * 2**20
    with safe_open(path, framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert "F16" in kinds
    assert "F32" not in kinds
    model = fw.load(path)
    floating = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float32}


@pytest.mark.parametrize(
    "override",
    [
        *("data.val_count=5", "data.train_count=64", "finetune.steps=30", "prune.budget=macs=0.5"),
        *("save_dir=here", "train.log_every=7", "bench.seconds=1", "eval_batch_size=2"),
    ],
)
def test_what_does_not_change_the_network_keeps_it(override):
    assert shipped(override) == shipped() != None  # noqa: E711


@pytest.mark.parametrize(
    "override",
    [
        *("width=0.1", "input_size=96", "mean=[0,0,0]", "data.seed=1", "data.size=96"),
        *("train.steps=600", "train.learning_rate=0.1", "augment.flip=true", "num_classes=3"),
    ],
)
def test_another_network_must_be_trained(override):
    assert shipped(override) is None


def test_a_preset_without_one_has_none():
    assert shipped_network("demo_digits", load_config("demo_digits")[1]) is None


def test_it_finds_the_digits():
    """Fewer images than the README's table, so the bound is lower."""
    config = load_config(NAME, ("data.val_count=24", "data.train_count=1", "train.num_workers=0"))[
        1
    ]
    images = open_val(config, save_dir=Path("unused"))
    model = fw.load(shipped())
    found = evaluate(model, task_of(model, images.labels, config), val_batches(config, images))
    assert found["map_50"] > 0.97
