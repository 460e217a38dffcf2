import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from flyweight.errors import DataError
from flyweight.sensitivity.paddle_files import read_losses

RATIOS = np.arange(0.1, 1, 0.1)


@pytest.mark.parametrize("protocol", range(6))
def test_files_of_every_protocol(tmp_path, protocol):
    table = {
        "yolo_block.0.0.0.conv.weights": {ratio: np.float64(ratio / 4) for ratio in RATIOS},
        "conv1_weights": {0.5: -0.01, 0.30000000000000004: np.float32(0.5)},
    }
    path = tmp_path / "sensitivities.data"
    path.write_bytes(pickle.dumps(table, protocol))
    found = read_losses(path)
    assert list(found) == list(table)
    assert found["yolo_block.0.0.0.conv.weights"][0.3] == pytest.approx(0.075)
    assert list(found["conv1_weights"].items()) == [(0.3, 0.5), (0.5, -0.01)]


MADE = Path(tempfile.gettempdir()) / "made-by-a-pickle"


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(MADE),)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Evil(), "mkdir, which a table never needs"),
        ({"a": {0.1: Evil()}}, "mkdir, which a table never needs"),
        ([1, 2], "which a table never needs"),
        ({"a": [1]}, "which a table never needs"),
        ({"a": 1}, "a table of losses, not int"),
        ({"a": {0.1: "much"}}, "numbers, not str"),
        ({"a": {0.1: True}}, "numbers, not bool"),
        ({7: {0.1: 0.2}}, "a text, not int"),
    ],
)
def test_anything_else_is_refused_and_nothing_runs(tmp_path, value, said):
    path = tmp_path / "sensitivities.data"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=said) as error:
        read_losses(path)
    assert "\n" not in str(error.value)
    assert not MADE.exists()


@pytest.mark.parametrize("data", [b"", b"junk", pickle.dumps({"a": {0.1: 0.2}})[:-3]])
def test_damaged_files(tmp_path, data):
    path = tmp_path / "sensitivities.data"
    path.write_bytes(data)
    with pytest.raises(DataError, match="must hold parameters, ratios and losses"):
        read_losses(path)
    with pytest.raises(DataError):
        read_losses(tmp_path / "missing")
