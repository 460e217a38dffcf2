from pathlib import Path

import pytest
import yaml

from flyweight.config.settings import Config
from flyweight.data.survey import Survey
from flyweight.pipeline.proposal import propose
from flyweight.pipeline.starter_config import config_text


@pytest.mark.parametrize(
    ("task", "layout"),
    [("detect", "voc"), ("detect", "wider"), ("classify", "class_list"), ("segment", "masks")],
)
def test_the_text_is_a_config(task, layout):
    labels = tuple(f"a rather long name of class {number}: #{number}" for number in range(60))
    labels = ("face",) if layout == "wider" else ("yes", "1.5", *labels)
    train = Survey(100, labels, {}, ((480, 640),), 0.2)
    data = {
        "format": layout,
        "root": "/some where: else",
        "train": "007",
        "val": "b",
        "labels": labels,
    }
    text = config_text(
        Path("a.yaml"), propose(task, layout, train), data, (train, train), ("n: #1",)
    )
    config = Config.model_validate(yaml.safe_load(text))
    assert config.data.labels == labels
    assert (config.data.root, config.data.train) == ("/some where: else", "007")
    assert config.num_classes == len(labels)
    assert config.finetune.steps < config.train.steps
    assert max(map(len, text.splitlines())) <= 110
    assert "# Note: n: #1." in text
    assert "# flyweight train -c a.yaml" in text
