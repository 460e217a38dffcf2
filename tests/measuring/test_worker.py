import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import flyweight.measuring.worker

SOURCE = Path(flyweight.measuring.worker.__file__).parents[2]


def run_worker(*requests, expect=0):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flyweight.measuring.worker"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_conversation(make_chain):
    path = make_chain(rows=4, size=64, depth=8)
    answers = run_worker(
        {"op": "start", "cores": []},
        {"op": "load", "path": str(path), "threads": 1, "spinning": False},
        {"op": "prepare", "shapes": {"images": [4, 64]}, "warmup": 2, "seed": 0},
        {"op": "block", "runs": 7},
        {"op": "memory"},
    )
    started, loaded, ready, block, memory = [answer["ok"] for answer in answers]
    assert set(started["versions"]) == {"onnxruntime", "numpy"}
    assert loaded["inputs"] == [{"name": "images", "type": "float32", "shape": [4, 64]}]
    assert loaded["load_ms"] > 0
    assert ready["estimate_ms"] > 0
    assert len(block["wall_ms"]) == 7
    assert min(block["wall_ms"]) > 0
    assert memory["peak"] >= memory["baseline"] > 1_000_000


def test_the_peak_counts_the_weights(make_chain):
    small, large = make_chain("s.onnx", depth=1), make_chain("l.onnx", size=1024, depth=8)
    peaks = []
    for path, size in ((small, 64), (large, 1024)):
        answers = run_worker(
            {"op": "start", "cores": []},
            {"op": "load", "path": str(path), "threads": 1, "spinning": False},
            {"op": "prepare", "shapes": {"images": [16, size]}, "warmup": 1, "seed": 0},
            {"op": "memory"},
        )
        memory = answers[-1]["ok"]
        peaks.append(memory["peak"] - memory["baseline"])
    assert peaks[1] - peaks[0] > 8 * 1024 * 1024 * 4 * 0.9


def test_an_error_is_an_answer_and_the_child_goes_on(tmp_path):
    answers = run_worker(
        {"op": "start", "cores": []},
        {"op": "load", "path": str(tmp_path / "no.onnx"), "threads": 1, "spinning": False},
        {"op": "memory"},
    )
    assert answers[1]["kind"] == "NoSuchFile"
    assert "\n" not in answers[1]["error"]
    assert "ok" in answers[2]


def test_the_child_carries_neither_torch_nor_the_rest_of_the_package():
    code = (
        "import sys, onnxruntime, flyweight.measuring.worker\n"
        "import flyweight.runtimes.onnxruntime_backend, flyweight.runtimes.openvino_backend\n"
        "import flyweight.runtimes.random_inputs\n"
        "heavy = {'torch', 'torchvision', 'pydantic', 'lightning', 'onnx'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_runtime_is_chosen_when_the_child_starts(make_chain):
    answers = run_worker(
        {"op": "start", "cores": [], "runtime": "openvino"},
        {"op": "load", "path": str(make_chain()), "threads": 1, "spinning": False},
        {"op": "prepare", "shapes": {"images": [16, 64]}, "warmup": 0, "seed": 0},
        {"op": "block", "runs": 3},
        {"op": "start", "cores": [], "runtime": "tvm"},
    )
    assert set(answers[0]["ok"]["versions"]) == {"openvino", "numpy"}
    assert answers[1]["ok"]["inputs"][0]["type"] == "float32"
    assert len(answers[3]["ok"]["wall_ms"]) == 3
    assert answers[4]["kind"] == "ConfigError"


def test_steps_in_a_wrong_order_are_answered():
    answers = run_worker(
        {"op": "prepare", "shapes": {}, "warmup": 0, "seed": 0}, {"op": "block", "runs": 1}
    )
    assert "must be loaded" in answers[0]["error"]
    assert "must be prepared" in answers[1]["error"]


def endless():
    shape = [1, 4]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("ci", "co")]
    inner = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("xi", "xo")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [helper.make_node("Relu", ["xi"], ["xo"]), helper.make_node("Identity", ["ci"], ["co"])]
    body = helper.make_graph(nodes, "body", [count, flags[0], inner[0]], [flags[1], inner[1]])
    values = [
        numpy_helper.from_array(np.array(10**12, np.int64), "most"),
        numpy_helper.from_array(np.array(True), "go_on"),
    ]
    loop = helper.make_node("Loop", ["most", "go_on", "x"], ["y"], body=body)
    graph = helper.make_graph([loop], "endless", [x], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def child_exists(pid):
    """Say whether a process runs; one that ended may stay listed until the system collects it."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip() not in ("", "Z", "Zs", "Z+")


PARENT = """
import os, sys
from flyweight.measuring.process import WorkerProcess
child = WorkerProcess("endless", timeout_seconds=600)
child.ask("start", cores=[])
print(child.pid, flush=True)
child.ask("load", path=sys.argv[1], threads=1, spinning=False)
child.ask("prepare", shapes={"x": [1, 4]}, warmup=0, seed=0)
"""


def test_it_ends_with_its_parent_in_the_middle_of_an_inference(tmp_path):
    path = tmp_path / "endless.onnx"
    path.write_bytes(endless().SerializeToString())
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        time.sleep(2)  # The import and the first inference, which never ends.
        assert child_exists(child)
        parent.kill()
    ends_by = time.monotonic() + 60
    while child_exists(child) and time.monotonic() < ends_by:
        time.sleep(0.1)
    if child_exists(child):
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child outlived its parent")
