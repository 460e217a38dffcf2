import pytest

from flyweight.errors import MeasureError
from flyweight.measuring.operators import time_operators


def test_every_operator_is_timed(make_chain):
    found = time_operators(make_chain(depth=3, size=128), seconds=0.0, runs=4)
    assert len(found.times_ms) == 3  # three matrix products
    assert {len(times) for times in found.times_ms.values()} == {4}
    assert all(time >= 0 for times in found.times_ms.values() for time in times)
    assert set(found.versions) == {"onnxruntime", "numpy"}


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(MeasureError, match=r"a\.onnx' must be an ONNX file with static inputs"):
        time_operators(path)
