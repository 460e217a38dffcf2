import json
from datetime import date, timedelta

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import flyweight as fw
from flyweight.checkpoint import read
from flyweight.config.data import DataConfig
from flyweight.config.reading import load_config
from flyweight.config.tasks import TaskConfig
from flyweight.data.layouts.voc_write import write_voc
from flyweight.data.loading import open_set
from flyweight.errors import CheckpointError, ConfigError, DataError
from flyweight.pipeline.belonging import require_same_labels
from flyweight.pipeline.inputs import (
    Saver,
    load_model,
    open_checkpoint,
    open_data,
    open_val,
    starting_weights,
    task_for,
    with_overrides,
)
from flyweight.pipeline.network_plans import build_model
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=4", "data.val_count=2")
LABELS = tuple("0123456789")


def config_of(*overrides):
    return load_config("demo_digits", (*SMALL, *overrides))[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model_final.safetensors"
    config = config_of()
    Saver(config, LABELS, "detect")(build_model(config), {"map_50": 0.5}, path)
    return path


def test_a_checkpoint_says_where_its_metrics_come_from(tmp_path):
    config, path = config_of(), tmp_path / "a.safetensors"
    save = Saver(config, LABELS, "detect", measured_on="digits/val")
    save(build_model(config), {"map_50": 0.5}, path)
    found = read(path)
    record = found.metric_records["map_50"]
    assert (record.value, record.data) == (0.5, "digits/val")
    assert abs(date.fromisoformat(record.date) - date.today()) <= timedelta(days=1)


@pytest.fixture
def voc(tmp_path):
    digits = DataConfig(format="digits", size=64, train_count=3, val_count=2)
    for split in ("train", "val"):
        write_voc(open_set(digits, split), tmp_path / "set")
    return tmp_path / "set"


def voc_config(root, *overrides):
    return config_of("data.format=voc", f"data.root={root}", *overrides)


def test_an_empty_split(voc):
    (voc / "ImageSets/Main/val.txt").write_text("\n")
    for opening in (open_data, open_val):
        with pytest.raises(
            DataError, match=r"A split must have images\. Received 'set/val'.*val\.txt"
        ):
            opening(voc_config(voc))


def test_a_picture_that_does_not_decode(voc, tmp_path):
    image = next((voc / "JPEGImages").glob("val_*"))
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{image.name}.*All are listed in '.*problems.txt'"):
        open_data(voc_config(voc), save_dir=tmp_path / "run")
    assert image.name in (tmp_path / "run/data_problems.txt").read_text()
    with pytest.raises(DataError, match=rf"{image.name}.*All are listed in '.*problems.txt'"):
        open_val(voc_config(voc), save_dir=tmp_path / "val")
    assert image.name in (tmp_path / "val/data_problems.txt").read_text()
    with pytest.raises(DataError, match=image.name):
        open_val(voc_config(voc))


def test_another_number_of_classes():
    for opening in (open_data, open_val):
        with pytest.raises(
            ConfigError, match=r"labels, 10 .*Received 3. Set it with: -o num_classes=10"
        ):
            opening(config_of("num_classes=3"))


def test_a_missing_split(voc):
    with pytest.raises(DataError, match=r"Received 'vall'. Nearest: 'val'"):
        open_data(voc_config(voc, "data.val=vall"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("width=0.2", "with width 0.1 where the config says 0.2"),
        ("num_classes=3", "with num_classes 10 where the config says 3"),
        ("model=other", "with model 'yolov3_mobilenet_v1' where the config says 'other'"),
    ],
)
def test_a_checkpoint_of_another_network(saved, override, said):
    with pytest.raises(CheckpointError, match=said):
        load_model(saved, config_of(override))


def test_labels_in_another_order(saved):
    found = read(saved)
    require_same_labels(found.labels, LABELS, saved)
    with pytest.raises(CheckpointError, match="whose class 0 is '0' where the data says '9'"):
        require_same_labels(found.labels, LABELS[::-1], saved)


def test_starting_from_nothing():
    assert starting_weights(build_model(config_of()), config_of()).report == "weights: fresh"


def test_starting_from_a_checkpoint(saved):
    config = config_of(f"pretrain_weights={saved.with_suffix('')}", "train.seed=5")
    model = build_model(config)
    assert starting_weights(model, config).report == f"weights: {saved}"
    assert torch.equal(
        model.state_dict()["backbone.conv1.conv.weight"],
        load_file(saved)["backbone.conv1.conv.weight"],
    )


def test_starting_from_other_classes_fills_all_but_the_outputs(saved):
    config = config_of(f"pretrain_weights={saved}", "num_classes=3", "train.seed=5")
    model = build_model(config)
    said = starting_weights(model, config).report
    assert "6 mismatched: yolo_output.0.conv.weight" in said
    name = "yolo_block.2.tip.conv.weight"
    assert torch.equal(model.get_parameter(name), load_file(saved)[name])


def test_starting_from_plain_weights(saved, tmp_path):
    plain = tmp_path / "plain.safetensors"
    save_file(load_file(saved), plain)
    config = config_of(f"pretrain_weights={plain}")
    assert "backbone" in starting_weights(build_model(config), config).report


def test_starting_from_what_is_no_weights(saved, tmp_path):
    half = tmp_path / "half.safetensors"
    half.write_bytes(saved.read_bytes()[:5000])
    for path in (half, tmp_path / "none"):
        config = config_of(f"pretrain_weights={path}")
        with pytest.raises(CheckpointError, match=str(path)):
            starting_weights(build_model(config), config)


def test_a_checkpoint_alone(saved):
    loaded = open_checkpoint(saved)
    assert loaded.task.labels == LABELS
    assert loaded.preprocessing == config_of().preprocessing
    assert loaded.task.config == config_of().detect
    assert not loaded.model.training


def test_a_checkpoint_that_does_not_say_what_it_is_for(tmp_path):
    path = tmp_path / "a.safetensors"
    model = build_model(config_of())
    fw.save(model, path)
    with pytest.raises(CheckpointError, match="without labels and preprocessing") as refusal:
        open_checkpoint(path)
    fw.save(model, path, labels=LABELS)
    with pytest.raises(CheckpointError, match=r"without preprocessing\. Save it again with: "):
        open_checkpoint(path)
    # What the letter says to pass is enough.
    call = str(refusal.value).partition("Save it again with: ")[2]
    told = {"fw": fw, "model": model, "path": path}
    eval(call.replace('("cat", ...)', repr(LABELS)), told)
    assert open_checkpoint(path).preprocessing.height == 320


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["preprocessing"].update(height="tall"), "with 'height'"),
        (lambda h: h["notes"].update(detect={"metric": "guess"}), "with 'detect.metric'"),
        (lambda h: h["notes"].update(detect={"new": 1}), "with 'detect.new'"),
    ],
)
def test_settings_of_another_version(saved, tmp_path, change, said):
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["flyweight"])
    change(header)
    path = tmp_path / "a.safetensors"
    save_file(load_file(saved), path, metadata={"flyweight": json.dumps(header)})
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(path)


def test_what_the_user_tells_holds_over_what_was_saved(saved):
    own = open_checkpoint(saved).preprocessing
    told = with_overrides(config_of("input_size=96", "mean=[0, 0, 0]"), own, {"input_size"})
    assert (told.preprocessing.height, told.preprocessing.mean) == (96, own.mean)
    assert with_overrides(load_config("demo_digits")[1], own, ()).preprocessing == own


def test_starting_from_a_hub(monkeypatch):
    config = config_of("pretrain_weights=timm")
    tensors = {"yolo_block.2.tip.conv.weight": torch.ones(26, 13, 3, 3)}
    model = build_model(config)
    tensors = {name: torch.ones(model.get_parameter(name).shape) for name in tensors}
    monkeypatch.setattr("flyweight.pipeline.inputs.hub_weights", lambda *_: ("a/b", tensors))
    said = starting_weights(model, config).report
    assert said.startswith("weights: a/b: 1 tensors loaded; 240 missing: backbone.")
    assert bool((model.get_parameter("yolo_block.2.tip.conv.weight") == 1).all())


def test_starting_from_another_network_fills_its_backbone(tmp_path):
    path = tmp_path / "classes.safetensors"
    classifier = fw.create("timm/mobilenetv2_035", num_classes=11)
    fw.save(classifier, path, task="classify")
    told = ("model=deeplabv3p", "width=null", "model_args={backbone: mobilenetv2_035}")
    config = config_of(*told, f"pretrain_weights={path}", "num_classes=11")
    model = build_model(config)
    said = starting_weights(model, config).report
    assert "backbone from" in said
    assert "missing" not in said
    assert torch.equal(model.backbone.conv_stem.weight, classifier.conv_stem.weight)


def test_data_of_another_task():
    config = config_of("data.format=digits_maps")
    for opening in (open_data, open_val):
        with pytest.raises(ConfigError, match=r"which is to detect. Formats to detect: voc, coco"):
            opening(config)


def test_boxes_are_not_cut_off():
    config = config_of("fit=crop")
    for opening in (open_data, open_val):
        with pytest.raises(
            ConfigError, match=r"To detect, .* fit 'crop', which cuts the sides off"
        ):
            opening(config)


def test_the_task_of_a_network_of_ones_own():
    model = fw.create(torch.nn.Linear, in_features=2, out_features=3)
    assert task_for(model, ("a",), TaskConfig(), "classify").name == "classify"
    with pytest.raises(ConfigError, match="outside the zoo"):
        task_for(model, ("a",), TaskConfig())
    with pytest.raises(ConfigError, match="'detect' with no geometry"):
        task_for(model, ("a",), TaskConfig(), "detect")
    model.geometry = COCO_GEOMETRY
    assert task_for(model, ("a",), TaskConfig(), "detect").geometry is COCO_GEOMETRY
