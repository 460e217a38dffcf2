import json

import numpy as np
import pytest
from PIL import Image

from flyweight.config.reading import load_config
from flyweight.errors import ConfigError, FileError
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.starter import start


@pytest.fixture
def classes(tmp_path):
    """A set of two classes without splits; one of its images is damaged."""
    for name in ("cat", "dog"):
        for number in range(10):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng([len(name), ord(name[0]), number]).integers(
                0, 255, (40, 50, 3)
            )
            Image.fromarray(values.astype(np.uint8)).save(path)
    (tmp_path / "pets" / "cat" / "3.png").write_bytes(b"no image")
    return tmp_path / "pets"


def test_the_config_can_be_used(classes, tmp_path):
    path = tmp_path / "made.yaml"
    started = start(classes, path)
    assert started.files == (tmp_path / "made_train.txt", tmp_path / "made_val.txt", path)
    assert (started.layout, started.train.images, started.val.images) == ("class_list", 16, 4)
    assert (len(started.problems), started.solved) == (1, True)
    _, config = load_config(str(path))
    assert config.data.problems == "leave_out"
    data = open_data(config)
    assert len(data.train) + len(data.val) == 19
    assert config.model == started.proposal.model == "torchvision/mobilenet_v2"


def test_nothing_is_replaced_silently(classes, tmp_path):
    path = tmp_path / "made.yaml"
    (tmp_path / "made_val.txt").write_text("mine")
    with pytest.raises(FileError, match=r"made_val\.txt', which exists\. Give another name"):
        start(classes, path)
    assert not path.exists()
    start(classes, path, overwrite=True)
    assert "mine" not in (tmp_path / "made_val.txt").read_text()


def test_the_layout_must_be_there(classes, tmp_path):
    with pytest.raises(ConfigError, match="Received 'voc'"):
        start(classes, tmp_path / "made.yaml", layout="voc")


def test_problems_that_cannot_be_left_out(tmp_path):
    root = tmp_path / "pets"
    root.mkdir()
    for split, names in (("train", ("cat", "dog", "cow")), ("val", ("cat", "dog"))):
        Image.new("RGB", (40, 40), (len(split), 0, 0)).save(root / f"{split}.png")
        categories = [{"id": index, "name": name} for index, name in enumerate(names)]
        box = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 9, 9]}
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "width": 40, "height": 40}],
            "annotations": [box],
            "categories": categories,
        }
        (root / f"{split}.json").write_text(json.dumps(content))
    started = start(root, tmp_path / "made.yaml")
    assert any("the same classes" in str(problem) for problem in started.problems)
    assert not started.solved
    assert started.notes == (
        "2 of 3 classes not in training (dog, cow) and 1 of 2 classes not in validation (dog)",
    )
    assert "leave_out" not in (tmp_path / "made.yaml").read_text()
