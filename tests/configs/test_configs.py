from importlib import resources

import pytest
import yaml

from flyweight.pruning import resolve
from flyweight.recipe.config import known_configs, load_config
from flyweight.recipe.cut import Cut, weightless
from flyweight.zoo import SPECS

ORIGINALS = ("yolov3_mobilenet_v1", "yolov3_mobilenet_v1_voc")


def test_the_names_are_the_originals():
    assert set(ORIGINALS) < set(known_configs())
    assert "demo_digits" in known_configs()


@pytest.mark.parametrize("name", known_configs())
def test_it_loads_and_says_how_it_is_run(name):
    label, config = load_config(name)
    assert label == name
    assert config.model in SPECS
    text = (resources.files("flyweight.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    for word in ("# command:", "# hardware:", "# expected:"):
        assert word in text


@pytest.mark.parametrize("name", known_configs())
def test_what_it_prunes_is_there(name):
    _, config = load_config(name)
    cut = Cut(config.prune.params, config.prune.ratios, config.prune.criterion)
    names = [parameter for parameter, _ in weightless(config).named_parameters()]
    assert [resolve(param, names) for param in cut.params] == list(cut.params)
    assert len(cut.params) == 18


def test_the_originals_settings():
    _, coco = load_config("yolov3_mobilenet_v1")
    _, voc = load_config("yolov3_mobilenet_v1_voc")
    assert (coco.num_classes, voc.num_classes) == (80, 20)
    assert (coco.train.steps, voc.train.steps) == (500_000, 70_000)
    assert (coco.train.milestones, voc.train.milestones) == ((400_000, 450_000), (55_000, 62_000))
    assert (coco.train.warmup_steps, voc.train.warmup_steps) == (4000, 1000)
    assert (coco.detect.metric, voc.detect.metric) == ("coco", "voc_11point")
    assert (coco.detect.label_smoothing, voc.detect.label_smoothing) == (True, False)
    for config in (coco, voc):
        assert config.train.batch_size == 64
        assert config.train.learning_rate == 1e-3
        assert config.input_size == 608
        assert config.augment.multi_scale == tuple(range(320, 609, 32))
        assert config.detect.suppression.top_k == 1000
        assert config.detect.suppression.iou_threshold == 0.45


def test_they_are_plain_yaml():
    for name in known_configs():
        text = (resources.files("flyweight.configs") / f"{name}.yaml").read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text), dict)
