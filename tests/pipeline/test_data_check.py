import numpy as np
import pytest
from PIL import Image

from flyweight.data.problem_kinds import KINDS
from flyweight.errors import ConfigError
from flyweight.pipeline import load_config
from flyweight.pipeline.data_check import EXAMPLES, check_data, inspect_data, summary_of


@pytest.fixture
def masks(tmp_path):
    """Return the overrides of a config for a set of masks of 0 and 255."""
    for split, count in (("train", EXAMPLES + 1), ("val", 1)):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([count, number]).integers(
                0, 256, (8, 8, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(tmp_path / f"images/{split}/{split}{number}.png")
            mask = np.uint8(255) * (pixels[..., 0] > 128)
            Image.fromarray(mask).save(tmp_path / f"masks/{split}/{split}{number}.png")
    (tmp_path / "labels.txt").write_text("nothing\ncell\n")
    return ("data.format=masks", f"data.root={tmp_path}", "num_classes=2")


def _config(*overrides):
    return load_config("segment_quick", overrides)[1]


def test_a_whole_set_is_counted_by_kind(masks):
    found = inspect_data(_config(*masks))
    assert found.stops
    assert set(found.splits) == {"train", "val"}
    assert check_data(_config(*masks)) == found.problems
    (kind,) = summary_of(found.problems)
    assert (kind.kind, kind.count, kind.stops) == ("masks_of_0_and_255", EXAMPLES + 2, True)
    assert kind.remedy == KINDS["masks_of_0_and_255"].remedy
    assert len(kind.examples) == EXAMPLES
    assert "train0.png: labels must be class indices" in kind.examples[0]
    remedied = inspect_data(_config(*masks, "data.values={0: 0, 255: 1}"))
    assert remedied.problems == ()
    assert not remedied.stops


def test_a_split_that_cannot_be_read_is_a_problem(masks):
    found = inspect_data(_config(*masks, "data.val=none"))
    assert list(found.splits) == ["train"]
    kinds = [kind.kind for kind in summary_of(found.problems)]
    assert kinds == ["unreadable_split", "masks_of_0_and_255"]
    assert inspect_data(_config(*masks, "data.root=nowhere")).splits == {}


def test_the_number_of_classes_is_the_data_s(masks):
    found = check_data(_config(*masks, "num_classes=3", "data.values={0: 0, 255: 1}"))
    assert [problem.kind for problem in found] == ["num_classes"]


def test_data_of_another_task_are_refused(masks):
    with pytest.raises(ConfigError, match="must be of the model's task"):
        check_data(_config(*masks, "data.format=voc"))
