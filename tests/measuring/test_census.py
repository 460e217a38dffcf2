import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from tests.measuring.quantized_files import OneLayer
from torch import nn

import flyweight as fw
from flyweight.errors import ConfigError, FileError, MeasureError
from flyweight.measuring.census import take_census
from flyweight.quantization.network import plan_of
from flyweight.runtimes.runtime_table import RUNTIMES, runtime_by_name

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    def __init__(self, activation=nn.ReLU, up=nn.Identity):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), activation())
        self.up = up()
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Linear(8, 4)

    def forward(self, images):
        return self.last(torch.relu(self.deep(self.up(self.first(images)))).amax((2, 3)))


def exported(model, path, *, quantized=True):
    torch.manual_seed(0)
    network = model.eval()
    if quantized:
        network = fw.quantize(network, IMAGES)
    fw.export(network, path, example=(IMAGES[:1],))
    return network


def precisions(census):
    return {layer.name: layer.precision for layer in census.layers}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_that_runs_on_integers(tmp_path, runtime):
    network = exported(Small(), tmp_path / "a.onnx")
    census = take_census(tmp_path / "a.onnx", runtime=runtime)
    names = [layer.operation for layer in plan_of(network).layers.values()]
    assert precisions(census) == dict.fromkeys(names, "int8")
    assert [layer.kind for layer in census.layers] == ["Conv", "Conv", "Gemm"]
    assert {layer.reason for layer in census.layers} == {""}
    assert census.integer_count == 3
    assert census.versions.keys() == {runtime, "numpy"}


def test_hard_swish_is_an_island_in_onnx_runtime(tmp_path):
    exported(Small(nn.Hardswish), tmp_path / "a.onnx")
    census = take_census(tmp_path / "a.onnx")
    assert census.integer_count == 3
    assert census.islands >= 1
    assert census.island_operations["HardSigmoid"] == 1
    other = take_census(tmp_path / "a.onnx", runtime="openvino")
    assert (other.integer_count, other.islands) == (3, 0)


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ("onnxruntime", "ONNX Runtime has no integer kernel for transposed convolutions"),
        ("openvino", "its weight 'network.up.weight' is not quantized"),
    ],
)
def test_a_transposed_convolution(tmp_path, runtime, reason):
    exported(Small(up=lambda: nn.ConvTranspose2d(8, 8, 2, 2)), tmp_path / "a.onnx")
    layers = {one.name: one for one in take_census(tmp_path / "a.onnx", runtime=runtime).layers}
    up = layers.pop("up.conv_transpose2d")
    assert (up.precision, up.reason) == ("float32", reason)
    assert {layer.precision for layer in layers.values()} == {"int8"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_float_file(tmp_path, runtime):
    exported(Small(), tmp_path / "a.onnx", quantized=False)
    census = take_census(tmp_path / "a.onnx", runtime=runtime)
    names = ["first.0.conv2d", "deep.conv2d", "last.linear"]
    assert precisions(census) == dict.fromkeys(names, "float32")
    assert {layer.reason for layer in census.layers} == {"the file holds float weights"}


def test_short_precisions_of_a_float_file(tmp_path):
    if "bfloat16" not in runtime_by_name("openvino").precisions():
        pytest.skip("this processor has no bfloat16")
    exported(Small(), tmp_path / "a.onnx", quantized=False)
    census = take_census(tmp_path / "a.onnx", runtime="openvino", precision="bfloat16")
    assert "bf16" in precisions(census).values()


class Reader(CalibrationDataReader):
    def __init__(self):
        self.images = iter([{"images": IMAGES[:1].numpy()}])

    def get_next(self):
        return next(self.images, None)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_of_another_tool(tmp_path, runtime):
    exported(Small(), tmp_path / "float.onnx", quantized=False)
    source, path = str(tmp_path / "float.onnx"), str(tmp_path / "a.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    options = {"op_types_to_quantize": ["Conv"], "per_channel": True}
    quantize_static(source, path, Reader(), **kinds, **options)
    census = take_census(path, runtime=runtime)
    assert precisions(census) == {
        "first.0.conv2d": "int8",
        "deep.conv2d": "int8",
        "last.linear": "float32",
    }
    assert census.layers[2].reason == "its weight 'network.last.weight' is not quantized"


def test_nodes_without_names(tmp_path):
    """The census does not depend on names, which other tools leave out."""
    exported(Small(), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "a.onnx")
    for runtime in RUNTIMES:
        census = take_census(tmp_path / "a.onnx", runtime=runtime)
        assert [layer.precision for layer in census.layers] == ["int8"] * 3


def test_mistakes(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(FileError, match="must be an ONNX file"):
        take_census(path)
    OneLayer().save(path)
    with pytest.raises(ConfigError, match="Nearest: 'onnxruntime'"):
        take_census(path, runtime="onnx_runtime")
    with pytest.raises(ConfigError, match="precision on ONNX Runtime must be float32"):
        take_census(path, precision="bfloat16")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nothing"
    onnx.save(model, path)
    with pytest.raises(MeasureError, match=r"must be an ONNX file that ONNX Runtime can load"):
        take_census(path)


def test_the_file_is_left_alone(tmp_path):
    path = OneLayer().save(tmp_path / "a.onnx")
    before = path.read_bytes()
    take_census(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
