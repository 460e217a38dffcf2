import json

import numpy as np
import pytest
import torch

from flyweight.errors import DataError
from flyweight.sensitivity.state_json import pack, unpack


def test_everything_a_metric_collects_survives_json():
    value = {
        "counts": np.arange(6).reshape(2, 3),
        "flags": np.array([True, False]),
        "scores": torch.tensor([0.5, float("nan")]),
        ("a", 1): [None, True, 2.5, "text", (1, (2,))],
        "one": np.float64(0.25),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    again = unpack(json.loads(json.dumps(pack(value))))
    assert list(again) == list(value)
    np.testing.assert_array_equal(again["counts"], value["counts"])
    assert again["counts"].dtype == np.int64
    assert again["flags"].tolist() == [True, False]
    assert again["scores"].isnan().tolist() == [False, True]
    assert again["a", 1] == value["a", 1]
    assert again["one"] == 0.25
    assert again["none"].shape == (0, 4)
    again["counts"][0] = 0  # what comes back can be written to


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="not object"):
        pack([object()])
    with pytest.raises(TypeError, match="not ndarray"):
        pack(np.array([object()]))


@pytest.mark.parametrize("wrong", [{"new": 1}, {"array": ["O", [1], ""]}, {"array": 1}, {}])
def test_other_json_is_refused(wrong):
    with pytest.raises(DataError, match="must be as it was written"):
        unpack(wrong)
