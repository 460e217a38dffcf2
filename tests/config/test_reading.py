from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flyweight.config.reading import load_config, touched
from flyweight.config.settings import Config
from flyweight.errors import ConfigError


def refusal(*overrides, name="demo_digits"):
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "yolov3_mobilenet_v1_voc",
        "yolov3_mobilenet_v1_voc.yml",
        "configs/yolov3_mobilenet_v1_voc.yml",
        "./configs/yolov3_mobilenet_v1_voc.yml",
        "configs/yolov3_mobilenet_v1_voc.yaml",
    ],
)
def test_every_spelling_of_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == load_config("yolov3_mobilenet_v1_voc")


def test_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"model": "m", "num_classes": 1, "input_size": 32, "train": {"steps": 1}}
    Path("configs").mkdir()
    path = Path("configs/demo_digits.yml")
    path.write_text(yaml.safe_dump({**values, "data": {"format": "digits"}}))
    label, config = load_config(str(path))
    assert (label, config.model) == ("demo_digits", "m")
    assert (config.preprocessing.height, config.preprocessing.width) == (32, 32)


def test_overrides():
    _, plain = load_config("demo_digits")
    _, config = load_config(
        "demo_digits",
        [
            "input_size=[320, 480]",
            "train.learning_rate=1e-4",
            "train.precision=32",
            "weights=2024",
            "prune.params=[a]",
            "finetune.steps=70",
            "augment.mixup_alpha=0.5",
        ],
    )
    assert (config.preprocessing.height, config.preprocessing.width) == (320, 480)
    assert config.train.learning_rate == 1e-4
    assert (config.train.precision, config.weights) == ("32", "2024")
    assert config.prune.params == ("a",)
    # The two share an anchor in the file; an override of one leaves the other alone.
    assert (config.finetune.steps, config.train.steps) == (70, plain.train.steps)


def test_an_anchor_shared_in_the_file_is_not_shared_by_an_override(tmp_path):
    values = {"model": "m", "num_classes": 1, "input_size": 32, "data": {"format": "digits"}}
    text = yaml.safe_dump(values) + "train: &t\n  steps: 9\nfinetune: *t\n"
    (tmp_path / "a.yaml").write_text(text)
    _, config = load_config(str(tmp_path / "a.yaml"), ["finetune.steps=3"])
    assert (config.train.steps, config.finetune.steps) == (9, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trian.steps=3", "Received 'trian' in 'demo_digits'. Nearest: 'train'."),
        ("train.stepz=3", "Received 'train.stepz' in 'demo_digits'. Nearest: 'train.steps'."),
        ("detect.suppression.topk=3", "Nearest: 'detect.suppression.top_k'."),
        ("finetune.step=3", "Nearest: 'finetune.steps'."),
        ("train.steps=many", "Received 'many' for 'train.steps' in 'demo_digits'"),
        ("train.steps=0", "greater than 0"),
        ("input_size=wide", "Received 'wide' for 'input_size' in 'demo_digits'"),
        ("data.format=vok", "Received 'vok' for 'data.format'"),
        ("data.format=voc", "root must name the folder"),
        ("train.milestones=[3, 2]", "milestones"),
        ("finetune.steps=7", "Received 'finetune' in 'demo_digits': warmup_steps must be at most"),
        ("weights", "must read key=value. Received 'weights'"),
        ("=3", "must read key=value. Received '=3'"),
        ("train.steps=[", "value must be YAML. Received 'train.steps=['"),
        ("a=2024-13-45", "value must be YAML"),
    ],
)
def test_what_cannot_be_meant(override, said):
    assert said in refusal(override)


def test_alternatives_are_not_part_of_a_key():
    said = refusal("input_size=wide")
    assert "'input_size'" in said
    assert "input_size.int" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "must be YAML"),
        (b"- a", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"\xff\xfe\x00", "must be readable text"),
        (b"model: m", "must have the key 'num_classes'"),
        (b"a: 2024-13-45", "must be YAML"),
    ],
)
def test_files_that_are_no_configs(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    message = refusal(name=str(path))
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("yolov3_mobilenet_v1_vok", "Nearest: 'yolov3_mobilenet_v1_voc'."),
        ("configs/yolov3_mobilenet_v1_vok.yml", "Nearest: 'yolov3_mobilenet_v1_voc'."),
        ("", "demo_digits"),
        ("nowhere/mine.yml", "Received 'nowhere/mine.yml'"),
    ],
)
def test_unknown_names(name, near):
    assert near in refusal(name=name)


def test_touched():
    assert touched([]) == frozenset()
    assert touched(["weights=a", "metric=coco"]) == {"weights", "detect"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_override_gives_a_config_or_one_line(key, value):
    try:
        found = load_config("demo_digits", [f"{key}={value}"])[1]
    except ConfigError as error:
        found = str(error)
    assert isinstance(found, (Config, str))
