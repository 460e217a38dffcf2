import subprocess
import sys
from collections import Counter
from typing import get_args

import numpy as np
import pytest

from flyweight.config.reading import load_config
from flyweight.config.settings import MeasureConfig
from flyweight.errors import ConfigError
from flyweight.runtimes import runtime_table
from flyweight.runtimes.protocol import NUMBER_TYPES, OpenSettings, TensorInfo
from flyweight.runtimes.random_inputs import random_inputs
from flyweight.runtimes.runtime_table import (
    DEFAULT_RUNTIME,
    RUNTIMES,
    installed_version,
    require_installed,
    runtime_by_name,
    runtime_entry,
)

every_runtime = pytest.mark.parametrize("name", RUNTIMES)


@every_runtime
def test_a_file_is_described_and_run(name, make_chain):
    model = runtime_by_name(name).open(make_chain(rows=2, size=8, depth=2), OpenSettings())
    assert model.inputs == (TensorInfo("images", "float32", (2, 8)),)
    assert model.outputs == (TensorInfo("h1", "float32", (2, 8)),)
    assert dict(model.properties) == {}
    arrays = {"images": np.eye(2, 8, dtype=np.float32)}
    first = model.run(arrays)
    again = model.run({"images": np.zeros((2, 8), np.float32)})
    assert set(first) == {"h1"}
    assert first["h1"].shape == (2, 8)
    assert np.all(again["h1"] == 0)
    assert np.any(first["h1"] != 0)  # a later run does not write into an earlier one's outputs
    model.inference(arrays)()


def test_all_runtimes_compute_the_same(make_chain):
    path = make_chain(rows=4, size=32)
    answers = []
    for name in RUNTIMES:
        model = runtime_by_name(name).open(path, OpenSettings(threads=2))
        answers.append(model.run(random_inputs(model.inputs, seed=3))["h3"])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


@every_runtime
def test_a_free_size_is_no_number(name, make_chain):
    model = runtime_by_name(name).open(make_chain(rows="batch", size=8), OpenSettings())
    rows, columns = model.inputs[0].shape
    assert not isinstance(rows, int)
    assert columns == 8
    assert model.run({"images": np.ones((3, 8), np.float32)})["h3"].shape == (3, 8)


@every_runtime
def test_the_operators_that_are_executed(name, make_chain):
    path = make_chain(rows=2, size=64, depth=3)
    found = runtime_by_name(name).operators(path, OpenSettings(), random_inputs, runs=4)
    computed = Counter(node for operator in found for node in operator.nodes)
    assert len(computed) == 3  # three products, in one operator or in several
    assert set(computed.values()) == {1}
    assert {operator.precision for operator in found} == {"float32"}
    assert all(operator.kind for operator in found)
    assert {len(operator.times_ms) for operator in found} == {4}
    assert all(time >= 0 for operator in found for time in operator.times_ms)


@every_runtime
def test_versions_and_precisions(name):
    runtime = runtime_by_name(name)
    versions = runtime.versions()
    assert set(versions) == {name, "numpy"}
    assert installed_version(name) == f"{name} {versions[name]}"
    assert runtime.precisions()[0] == "float32"


@every_runtime
def test_a_precision_that_is_not_supported(name, make_chain):
    with pytest.raises(ConfigError, match=r"float32.*Received: 'int4'") as error:
        runtime_by_name(name).open(make_chain(), OpenSettings(precision="int4"))
    assert "\n" not in str(error.value)


@every_runtime
def test_every_row_is_complete(name):
    entry = runtime_entry(name)
    assert require_installed(name) == entry
    assert entry.title
    assert entry.install.startswith("pip install ")
    assert DEFAULT_RUNTIME in RUNTIMES


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Received: 'opnvino'\. Nearest: 'openvino'\."):
        runtime_by_name("opnvino")


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # makes its import fail
    monkeypatch.delitem(sys.modules, "flyweight.runtimes.openvino_backend", raising=False)
    install = r"must be installed.*pip install 'flyweight\[openvino\]'$"
    with pytest.raises(ConfigError, match=install):
        runtime_by_name("openvino")
    monkeypatch.setattr(runtime_table, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=install) as error:
        require_installed("openvino")
    assert "\n" not in str(error.value)


@every_runtime
def test_runtimes_are_imported_on_first_use(name):
    code = (
        "import sys, flyweight.runtimes.runtime_table as table\n"
        f"table.require_installed({name!r})\n"
        "heavy = {'onnxruntime', 'openvino', 'onnx', 'torch', 'pydantic', 'numpy'}\n"
        "early = heavy & set(sys.modules)\n"
        f"table.runtime_by_name({name!r})\n"
        f"late = heavy & set(sys.modules) - {{'numpy', {name!r}}}\n"
        "sys.exit(f'{early} {late}' if early or late else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_types_of_tensors_are_those_of_numpy():
    assert {np.dtype(name).name for name in NUMBER_TYPES} == NUMBER_TYPES


def test_a_config_takes_the_names_of_the_table():
    assert get_args(MeasureConfig.model_fields["runtime"].annotation) == tuple(RUNTIMES)
    assert MeasureConfig().runtime == DEFAULT_RUNTIME
    _, config = load_config("demo_digits", ["bench.runtime=openvino"])
    assert config.bench.runtime == "openvino"
    with pytest.raises(ConfigError, match=r"openvin.*bench\.runtime"):
        load_config("demo_digits", ["bench.runtime=openvin"])
