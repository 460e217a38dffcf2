import onnx
import pytest
import torch

from flyweight import checkpoint, pipeline
from flyweight.config.quantization import QuantizeConfig
from flyweight.errors import CheckpointError, ExportError, FileError, PlanError
from flyweight.pipeline.inputs import Saver, open_data
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.stages import quantize as stage
from flyweight.pipeline.stages.quantize import QUANTIZE, QUANTIZED, TRAINING
from flyweight.quantization.network import plan_of
from flyweight.report.quantization_results import RECORD_NAME, read_quantization

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


def quantized(config, weights, options=None, *, overwrite=False, **settings):
    section = QuantizeConfig(weight_bits=7, **settings)
    config = config.model_copy(update={"quantize": section, "weights": str(weights)})
    source = pipeline.ModelSource("demo_digits", (), str(weights))
    options = options or pipeline.QuantizeOptions()
    return pipeline.quantize(source, config, options, overwrite=overwrite)


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
    assert not [path for path in folder.iterdir() if path.name.startswith(".quantized")]
    record = read_quantization(folder / RECORD_NAME)
    assert len(record.layers) == 50
    assert all(layer.loss is not None for layer in record.layers)
    assert found.steps == ()
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
    names = ["calibration", "dead channels", "bias correction", "training"]
    assert [step.name for step in found.steps] == names
    changed = [name for name in started if not torch.equal(started[name], trained[name])]
    assert any(name.endswith("conv.weight") for name in changed)
    assert (tmp_path / "output" / "demo_digits" / TRAINING / "logs" / "metrics.csv").is_file()


def test_layers_to_skip_and_the_name_of_the_file(tmp_path, config_of, dense):
    options = pipeline.QuantizeOptions(str(tmp_path / "own.safetensors"))
    found = quantized(config_of(), dense, options, skip=("yolo_output",))
    assert found.checkpoint == tmp_path / "own.safetensors"
    assert found.files["int8"] == tmp_path / "own.onnx"
    assert sorted(found.float_layers) == [f"yolo_output.{place}.conv.conv2d" for place in range(3)]


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


def test_the_network_of_another_checkpoint_is_not_replaced(tmp_path, config_of, dense):
    config = config_of()
    first = quantized(config, dense)
    before = first.checkpoint.read_bytes()
    torch.manual_seed(7)
    model = build_model(config)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    other = tmp_path / "other.safetensors"
    Saver(config, tuple("0123456789"), "detect")(model, {"map_50": 0.5}, other)
    with pytest.raises(
        FileError, match=r"must not replace that of another checkpoint.*--overwrite"
    ):
        quantized(config, other)
    assert first.checkpoint.read_bytes() == before
    # That of the same one is, and so is another one where it is asked for.
    quantized(config, dense, skip=("yolo_output",))
    assert quantized(config, other, overwrite=True).checkpoint == first.checkpoint


def test_a_layer_that_stays_float_against_the_plan_leaves_no_file(tmp_path, config_of, dense):
    config, folder = config_of(), tmp_path / "output" / "demo_digits"
    quantized(config, dense)
    before = {path.name: path.read_bytes() for path in folder.glob("quantized*")}

    def refused(census, plan):
        raise ExportError("the layer stays float")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "require_integer", refused)
        with pytest.raises(ExportError, match="stays float"):
            quantized(config, dense, skip=("yolo_output",))
        own = pipeline.QuantizeOptions(str(tmp_path / "new" / "own.safetensors"))
        with pytest.raises(ExportError, match="stays float"):
            quantized(config, dense, own)
    assert {path.name: path.read_bytes() for path in folder.glob("quantized*")} == before
    assert not list(tmp_path.glob("**/own*"))


def test_other_colours_than_in_training_are_named(config_of, dense):
    said = []
    saved = config_of().preprocessing
    used = saved.model_copy(update={"std": (1.0, 1.0, 1.0)})
    stage._note_other_colours(saved, saved, dense, said.append)
    assert said == []
    stage._note_other_colours(saved, used, dense, said.append)
    assert "calibrated with std (1.0, 1.0, 1.0), where" in said[0]
