import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.measuring.bootstrap import median_interval
from flyweight.measuring.environment import Environment
from flyweight.measuring.measure import Measurement

MakeModel = Callable[..., Path]


def save_chain(path: Path, *, depth: int, size: int = 64, rows: int | str = 16) -> Path:
    """Write a chain of `depth` matrix products of `rows` x `size` with `size` x `size`."""
    generator = np.random.default_rng(0)
    nodes, weights, current = [], [], "images"
    for index in range(depth):
        values = generator.standard_normal((size, size)).astype(np.float32) / size**0.5
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], [f"h{index}"]))
        current = f"h{index}"
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, size])
        for name in ("images", current)
    ]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:], weights)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture
def make_chain(tmp_path: Path) -> MakeModel:
    def make(name: str = "chain.onnx", **sizes: int | str) -> Path:
        return save_chain(tmp_path / name, **{"depth": 4, **sizes})

    return make


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Return a function that lists this process's measuring children now alive."""

    def list_children() -> set[int]:
        listing = subprocess.run(
            ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
        ).stdout
        return {
            int(line.split()[0])
            for line in listing.splitlines()
            if "flyweight.measuring.worker" in line and int(line.split()[1]) == os.getpid()
        }

    return list_children


HERE = Environment("cpu", 2, None, 0.1, 0.2, "Linux", "3.11", {"onnxruntime": "1"}, "today", None)


def invent(name, level, *, seed=0, noise=0.01, threads=1, session="s"):
    generator = np.random.default_rng(seed)
    blocks = level * (1 + noise * generator.standard_normal((20, 10)))
    return Measurement(
        name=name,
        path=f"/x/{name}",
        threads=threads,
        median_ms=float(np.median(blocks)),
        p95_ms=float(np.percentile(blocks, 95)),
        min_ms=float(blocks.min()),
        interval_ms=median_interval(blocks.tolist()),
        cpu_ms=level,
        load_ms=12.0,
        peak_bytes=50_000_000,
        model_bytes=None,
        file_bytes=1_500_000,
        runs=200,
        input_shapes={"images": (1, 3, 32, 32)},
        notes=("NOISY MACHINE: made up",) if name == "b.onnx" else (),
        environment=HERE,
        session=session,
        blocks_ms=tuple(map(tuple, blocks.tolist())),
    )


@pytest.fixture
def made_up() -> Callable[..., Measurement]:
    """Return a function that makes a measurement from a level and noise."""
    return invent
