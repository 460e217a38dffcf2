import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save
from tests.measuring.quantized_files import OneLayer
from torch import nn

from flyweight.exporting.onnx import to_onnx
from flyweight.runtimes.openvino_backend import OpenVino, openvino
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.random_inputs import random_inputs


def test_float32_is_the_default_on_every_processor(make_chain):
    path = make_chain(rows=2, size=64)
    found = OpenVino().operators(path, OpenSettings(), random_inputs)
    assert {operator.precision for operator in found} == {"float32"}


@pytest.mark.skipif("bfloat16" not in OpenVino().precisions(), reason="no bfloat16 instructions")
def test_bfloat16_is_used_when_it_is_wanted(tmp_path):
    layers = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    to_onnx(layers, tmp_path / "a.onnx", example=(torch.rand(1, 3, 16, 16),))
    settings = OpenSettings(precision="bfloat16")
    found = OpenVino().operators(tmp_path / "a.onnx", settings, random_inputs)
    kinds = {operator.kind: operator.precision for operator in found}
    assert kinds["Convolution"] == "bfloat16"


def test_the_nodes_of_a_fused_operator(tmp_path):
    layers = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU())
    to_onnx(layers, tmp_path / "a.onnx", example=(torch.rand(1, 3, 16, 16),))
    found = OpenVino().operators(tmp_path / "a.onnx", OpenSettings(), random_inputs)
    (convolution,) = [operator for operator in found if operator.kind == "Convolution"]
    assert len(convolution.nodes) >= 2  # the convolution and its activation
    assert all(not operator.nodes for operator in found if operator.kind == "Reorder")


def test_its_own_format_keeps_the_properties_of_the_file(tmp_path, small_net, card):
    to_onnx(small_net, tmp_path / "a.onnx", example=(torch.rand(1, 3, 16, 16),), card=card)
    openvino.save_model(
        openvino.Core().read_model(tmp_path / "a.onnx"), tmp_path / "a.xml", compress_to_fp16=False
    )
    runtime = OpenVino()
    models = [runtime.open(tmp_path / name, OpenSettings()) for name in ("a.onnx", "a.xml")]
    assert models[0].properties == models[1].properties
    assert models[0].properties["flyweight.name"] == '"small"'
    answers = [model.run(random_inputs(model.inputs)) for model in models]
    for name, found in answers[0].items():
        np.testing.assert_allclose(answers[1][name], found, rtol=1e-5, atol=1e-6)


def test_threads_stay_on_the_cores_of_the_process(make_chain):
    cores = os.sched_getaffinity(0)
    model = OpenVino().open(make_chain(rows=64, size=256), OpenSettings(threads=2))
    model.run(random_inputs(model.inputs))
    threads = [int(name) for name in os.listdir("/proc/self/task")]  # noqa: PTH208
    assert all(os.sched_getaffinity(thread) <= cores for thread in threads)


def test_nothing_is_reported_over_the_network(tmp_path):
    code = (
        "import sys, threading\n"
        "from flyweight.runtimes.runtime_table import runtime_by_name\n"
        "runtime_by_name('openvino').precisions()\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert threading.active_count() == 1\n"
        "import openvino_telemetry  # others can use it\n"
    )
    own = {"CI", "TF_BUILD", "JENKINS_URL"}  # with these, nothing is reported anyway
    home = {name: value for name, value in os.environ.items() if name not in own}
    home["HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=home, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_kernel_says_what_is_multiplied(tmp_path):
    """Weights of 8 bits are also multiplied in float; the type of the input does not show that."""

    def product(layer):
        path = layer.save(tmp_path / "a.onnx")
        found = OpenVino().optimized(path, OpenSettings(), lambda written: ())
        return next(one for one in found if one.kind in ("FullyConnected", "MatMul"))

    integer = product(OneLayer(kind="Gemm"))
    assert integer.precision == "int8"
    assert integer.makes == (integer.name,)
    assert product(OneLayer(kind="Gemm", quantized_input=False)).precision == "float32"


def test_outputs_have_the_names_of_the_file(tmp_path):
    """A tensor that passes an Identity has two names, and OpenVINO gives the first by alphabet."""
    made, returned = ["mul_9", "mul_10"], ["boxes", "scores"]
    nodes = [helper.make_node("Mul", ["images", "images"], [name]) for name in made]
    nodes += [
        helper.make_node("Identity", [one], [other])
        for one, other in zip(made, returned, strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "aliases",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in returned],
    )
    opset = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "a.onnx")
    opened = OpenVino().open(tmp_path / "a.onnx", OpenSettings())
    assert [item.name for item in opened.inputs] == ["images"]
    assert [item.name for item in opened.outputs] == returned
    found = opened.run({"images": np.float32([[2, 3]])})
    assert list(found) == returned


def test_signals_are_handled_after_two_models_were_closed_in_the_order_they_were_opened(make_chain):
    code = (
        "import signal, sys\n"
        "from flyweight.runtimes.protocol import OpenSettings\n"
        "from flyweight.runtimes.runtime_table import runtime_by_name\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        "first, second = (\n"
        "    runtime_by_name('openvino').open(sys.argv[1], OpenSettings()) for _ in range(2)\n"
        ")\n"
        "del first\n"
        "del second\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
    )
    path = make_chain(rows=2, size=64)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"handled\n")
