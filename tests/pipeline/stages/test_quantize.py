import onnx
import pytest
import torch

from flyweight import checkpoint, pipeline
from flyweight.config.quantization import QuantizeConfig
from flyweight.errors import CheckpointError, FileError, PlanError
from flyweight.pipeline.inputs import open_data
from flyweight.pipeline.stages.quantize import QUANTIZE, QUANTIZED, TRAINING, calibration_images
from flyweight.quantization.network import plan_of

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


def quantized(config, weights, options=None, **settings):
    section = QuantizeConfig(weight_bits=7, **settings)
    config = config.model_copy(update={"quantize": section, "weights": str(weights)})
    source = pipeline.ModelSource("demo_digits", (), str(weights))
    return pipeline.quantize(source, config, options or pipeline.QuantizeOptions())


def test_a_checkpoint_and_both_files(tmp_path, config_of, dense):
    config = config_of()
    found = quantized(config, dense)
    folder = tmp_path / "output" / "demo_digits"
    assert found.checkpoint == folder / QUANTIZED
    assert found.files == {
        "int8": folder / "quantized.onnx",
        "float": folder / "quantized_float.onnx",
    }
    assert found.file_bytes["int8"] < found.file_bytes["float"] / 2
    assert set(found.metrics["float"]) == set(found.metrics["int8"])
    model = checkpoint.load(found.checkpoint)
    plan = plan_of(model)
    assert plan is not None
    assert found.integer_layers == len(plan.layers) == 50
    read = checkpoint.read(found.checkpoint)
    assert [one.role for one in read.origin.parents] == ["float"]
    assert read.labels == tuple("0123456789")
    types = {item.data_type for item in onnx.load(found.files["int8"]).graph.initializer}
    assert onnx.TensorProto.INT8 in types


def test_a_finished_stage_is_read_as_it_was_made(config_of, dense):
    config = config_of()
    made = quantized(config, dense)
    workspace = QUANTIZE.workspace(made.checkpoint.parent, in_chain=False)
    options = pipeline.QuantizeOptions()
    inputs = pipeline.Inputs("demo_digits", open_data(config), options=options)
    section = QuantizeConfig(weight_bits=7)
    settings = QUANTIZE.view(config.model_copy(update={"quantize": section}))
    assert QUANTIZE.read(inputs, settings, workspace) == made


def test_training_changes_the_weights_and_keeps_the_plan(tmp_path, config_of, dense):
    config = config_of()
    found = quantized(config, dense, mode="aware")
    trained = checkpoint.load(found.checkpoint).state_dict()
    started = checkpoint.load(dense).state_dict()
    changed = [name for name in started if not torch.equal(started[name], trained[name])]
    assert any(name.endswith("conv.weight") for name in changed)
    assert (tmp_path / "output" / "demo_digits" / TRAINING / "logs" / "metrics.csv").is_file()


def test_layers_to_skip_and_the_name_of_the_file(tmp_path, config_of, dense):
    options = pipeline.QuantizeOptions(str(tmp_path / "own.safetensors"))
    found = quantized(config_of(), dense, options, skip=("yolo_output",))
    assert found.checkpoint == tmp_path / "own.safetensors"
    assert found.files["int8"] == tmp_path / "own.onnx"
    assert sorted(found.float_layers) == [f"yolo_output.{place}.conv.conv2d" for place in range(3)]


def test_calibration_images_are_spread_over_the_split(config_of):
    config = config_of("data.train_count=8")
    few = config.model_copy(update={"quantize": QuantizeConfig(images=2)})
    data = open_data(config)
    every, two = calibration_images(config, data), calibration_images(few, data)
    assert every.shape == (8, 3, 64, 64)
    assert torch.equal(two, every[[0, 4]])


def test_what_cannot_be_quantized_is_refused(tmp_path, config_of, dense):
    config = config_of()
    with pytest.raises(PlanError, match="'no_such_layer', which matches none"):
        quantized(config, dense, skip=("no_such_layer",))
    with pytest.raises(FileError, match=r"must be a \.safetensors file"):
        quantized(config, dense, pipeline.QuantizeOptions(str(tmp_path / "small.onnx")))
    with pytest.raises(FileError, match="must not replace the float one"):
        quantized(config, dense, pipeline.QuantizeOptions(str(dense)))
    small = quantized(config, dense).checkpoint
    again = pipeline.QuantizeOptions(str(tmp_path / "again.safetensors"))
    with pytest.raises(CheckpointError, match="which is quantized"):
        quantized(config, small, again)
