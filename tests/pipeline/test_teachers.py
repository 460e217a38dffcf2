import pytest
import torch
from safetensors.torch import save_file
from tests.pipeline.stages.conftest import TINY, Notes

from flyweight.config.distilling import DistillConfig
from flyweight.config.reading import load_config
from flyweight.errors import CheckpointError, ConfigError
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.teachers import default_teacher, open_teacher

LABELS = tuple("0123456789")


@pytest.fixture
def config(tmp_path):
    return load_config("demo_digits", (*TINY, f"save_dir={tmp_path / 'output'}"))[1]


@pytest.fixture
def saved(tmp_path, config):
    path = tmp_path / "teacher.safetensors"
    Saver(config, LABELS, "detect")(build_model(config), {}, path)
    return path


def test_a_checkpoint_says_everything(config, saved):
    found = open_teacher(DistillConfig(teacher=str(saved)), config)
    assert found.labels == LABELS
    assert found.preprocessing == config.preprocessing
    assert found.source == str(saved)


def test_a_teacher_may_be_of_another_network(config, saved, tmp_path):
    other = load_config("demo_digits", (*TINY, "model=yolov3_r34"))[1]
    path = tmp_path / "other.safetensors"
    Saver(other, LABELS, "detect")(build_model(other), {}, path)
    found = open_teacher(DistillConfig(teacher=str(path)), config)
    assert hasattr(found.model.backbone, "res5c")


def test_a_config_comes_with_weights_of_the_whole_network(config, saved, tmp_path):
    yaml = tmp_path / "teacher.yaml"
    yaml.write_text(
        "model: yolov3_mobilenet_v1\nnum_classes: 10\nwidth: 0.1\ninput_size: 64\n"
        "data: {format: digits}\ntrain: {steps: 1}\n"
    )

    def opened(weights):
        named = {"teacher_config": str(yaml), "teacher_pretrained": str(weights)}
        return open_teacher(DistillConfig(**named), config)

    assert opened(saved).labels == LABELS
    plain = tmp_path / "plain.safetensors"
    tensors = {name: one.clone() for name, one in build_model(config).state_dict().items()}
    save_file(tensors, plain)
    model = opened(plain).model
    assert torch.equal(
        model.state_dict()["yolo_output.0.conv.bias"], tensors["yolo_output.0.conv.bias"]
    )
    part = {name: one for name, one in tensors.items() if name.startswith("backbone.")}
    save_file(part, plain)
    with pytest.raises(CheckpointError, match="must fill its network"):
        opened(plain)


def test_a_dense_student_has_no_teacher_by_default(config, saved):
    notes = Notes()
    with pytest.raises(ConfigError, match="Add: -t CHECKPOINT"):
        default_teacher("run", config, saved, is_cut=False, progress=notes)
    # One that is going to be cut is taught by itself.
    assert default_teacher("run", config, saved, is_cut=True, progress=notes) == saved
