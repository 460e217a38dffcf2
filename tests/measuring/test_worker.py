import json
import os
import subprocess
import sys
from pathlib import Path

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
