import numpy as np
import pytest

from flyweight.config.data import DataConfig
from flyweight.data.layouts.box_readers import READERS, read_boxes
from flyweight.data.layouts.convert import WRITERS, convert
from flyweight.data.loading import open_set


def test_what_can_be_written_can_be_read():
    assert READERS.keys() == WRITERS.keys()


@pytest.mark.parametrize("layout", READERS)
def test_a_config_opens_every_layout(tmp_path, tiny_set, layout):
    convert(tiny_set(labels=("face",)), tmp_path, layout, split="val")
    split = "annotations/instances_val.json" if layout == "coco" else "val"
    found = open_set(DataConfig(format=layout, root=str(tmp_path), val=split), "val")
    np.testing.assert_allclose(found.records[0].boxes, [[1, 2, 11, 12]], atol=1e-4)
    assert found.labels == ("face",)


@pytest.mark.parametrize("layout", ["voc", "coco", "wider"])
def test_difficult_objects_can_be_made_ordinary(tmp_path, tiny_set, layout):
    convert(tiny_set(labels=("face",), difficult={(0, 0)}), tmp_path, layout, split="val")
    split = "annotations/instances_val.json" if layout == "coco" else "val"
    config = DataConfig(format=layout, root=str(tmp_path))
    assert read_boxes(config, split).records[0].difficult.tolist() == [True]
    ordinary = config.model_copy(update={"use_difficult": True})
    assert read_boxes(ordinary, split).records[0].difficult.tolist() == [False]
