import shlex
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


def test_the_commands_of_the_head_can_be_copied():
    train = Survey(100, ("a", "b"), {}, ((480, 640),), 0.2)
    path = Path("a folder") / ("x" * 90 + ".yaml")
    text = config_text(path, propose("classify", "imagefolder", train), {}, (train, train), ())
    commands = [
        shlex.split(line[2:]) for line in text.splitlines() if line.startswith("# flyweight")
    ]
    assert [words[1] for words in commands] == ["check-data", "train", "prune"]
    assert all(words[3] == str(path) for words in commands)
    assert commands[2][5] == f"weights=output/{path.stem}/best_model"
