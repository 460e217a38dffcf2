import pytest

from flyweight.errors import ConfigError, MeasureError
from flyweight.measuring.operators import time_operators
from flyweight.runtimes.runtime_table import RUNTIMES


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_operator_is_timed(make_chain, runtime):
    path = make_chain(depth=3, size=128)
    found = time_operators(path, seconds=0.0, runs=4, runtime=runtime)
    nodes = [node for operator in found.operators for node in operator.nodes]
    assert len(nodes) == 3  # three matrix products
    assert len(found.times_ms) == len(found.operators)
    assert {len(times) for times in found.times_ms.values()} == {4}
    assert all(time >= 0 for times in found.times_ms.values() for time in times)
    assert set(found.versions) == {runtime, "numpy"}
    assert {operator.precision for operator in found.operators} == {"float32"}


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(MeasureError, match=r"a\.onnx' must be an ONNX file with static inputs"):
        time_operators(path)


def test_a_runtime_or_precision_that_does_not_exist(make_chain):
    with pytest.raises(ConfigError, match="Nearest: 'onnxruntime'"):
        time_operators(make_chain(), runtime="onnx_runtime")
    with pytest.raises(ConfigError, match=r"precision on ONNX Runtime must be float32"):
        time_operators(make_chain(), precision="bfloat16")
