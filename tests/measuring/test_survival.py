import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from flyweight.errors import MeasureError
from flyweight.measuring.survival import require_survival

SHAPE = [1, 4, 6, 6]


@pytest.fixture
def fatal(tmp_path):
    """A file that ends OpenVINO 2026.4: a concatenation that is rounded, and again after a ReLU."""
    constants = {"scale": np.float32(0.04), "ninety": np.uint8(90), "zero": np.uint8(0)}
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=1),
        helper.make_node("QuantizeLinear", ["joined", "scale", "ninety"], ["first"]),
        helper.make_node("DequantizeLinear", ["first", "scale", "ninety"], ["rounded"]),
        helper.make_node("Relu", ["rounded"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["second"]),
        helper.make_node("DequantizeLinear", ["second", "scale", "zero"], ["made"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fatal",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "ab"],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, [1, 8, 6, 6])],
        [numpy_helper.from_array(np.array(one), name) for name, one in constants.items()],
    )
    path = tmp_path / "fatal.onnx"
    opset = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_the_end_of_a_runtime_is_an_error_that_names_the_file(fatal):
    """Versions of OpenVINO that load the file must pass, those that end their process must not."""
    pytest.importorskip("openvino")
    load = "import sys, openvino; openvino.Core().compile_model(sys.argv[1], 'CPU')"
    alone = subprocess.run([sys.executable, "-c", load, fatal], capture_output=True, check=False)
    expected = nullcontext()
    if alone.returncode < 0:
        expected = pytest.raises(
            MeasureError,
            match=r"OpenVINO must survive loading 'net\.onnx'.* Received: exit code -11 .* Choose",
        )
    with expected:
        require_survival(fatal, "net.onnx", runtime="openvino")


def test_a_worker_that_dies_is_an_error_with_any_runtime(fatal, monkeypatch):
    class Dying:
        def __init__(self, name, timeout_seconds):
            self.name = name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def ask(self, request, **values):
            if request == "load":
                raise MeasureError("The worker must answer. Received: exit code -11 at 'load'.")

    pytest.importorskip("openvino")
    monkeypatch.setattr("flyweight.measuring.survival.WorkerProcess", Dying)
    with pytest.raises(
        MeasureError,
        match=r"^OpenVINO must survive loading 'net\.onnx'\. Received: exit code -11 at 'load'\. "
        r"Choose another runtime for this file\.$",
    ):
        require_survival(fatal, "net.onnx", runtime="openvino")


def test_a_runtime_that_never_ends_its_process_loads_nothing(tmp_path):
    require_survival(tmp_path / "none.onnx", "none.onnx", runtime="onnxruntime")


def test_a_file_that_is_refused_passes(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "no.onnx").write_bytes(b"no ONNX")
    require_survival(tmp_path / "no.onnx", "no.onnx", runtime="openvino")
