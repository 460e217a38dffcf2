"""The same-input comparison finds a wrong layer, and only that one."""

import importlib
import sys
from pathlib import Path

import onnx
import pytest
import torch
from tests.quantization.conftest import Residual, change_weight, trained_like

import flyweight as fw
from flyweight.graph.example_inputs import Example
from flyweight.runtimes.protocol import OpenSettings
from flyweight.runtimes.runtime_table import runtime_by_name

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


@pytest.fixture(scope="module")
def pieces():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("quantization_pieces")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    quantized = fw.quantize(trained_like(Residual()), images, fw.QuantConfig(weight_bits=7))
    return quantized, images[:1]


def wrong_pieces(pieces, quantized, images, path, runtime):
    tensors = pieces.rounded_tensors(quantized, Example((images,)))
    target = path.with_name("pieces.onnx")
    names = pieces.cut(path, tensors, target)
    assert len(names) == len(tensors) == 9
    opened = runtime_by_name(runtime).open(target, OpenSettings())
    found = list(pieces.differences(opened.run, {"images": images.numpy()}, tensors, names))
    assert sum(one.values for one in found) == sum(one.integers.size for one in tensors)
    return [one.quantizer for one in found if one.levels > 1 or one.flips > 2]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_one_wrong_weight_is_found_where_it_is(tmp_path, pieces, network, runtime):
    pytest.importorskip("openvino")
    quantized, images = network
    path = tmp_path / "net.onnx"
    fw.export(quantized, path, example=(images,))
    assert wrong_pieces(pieces, quantized, images, path, runtime) == []
    model = onnx.load(path)
    change_weight(model, "narrow.conv2d")
    onnx.save(model, path)
    assert wrong_pieces(pieces, quantized, images, path, runtime) == ["narrow.conv2d"]
