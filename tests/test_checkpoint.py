import errno
import json
import math
import os
import pickle
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import flyweight as fw
from flyweight.checkpoint import is_checkpoint, load_weights, read, rebuild
from flyweight.errors import CheckpointError, FileError

NAME = "yolov3_mobilenet_v1"
ARGUMENTS = {"num_classes": 3, "width": 0.1}
ONE, TWO = "yolo_block.0.0.0.conv.weight", "yolo_block.1.2.conv.weight"


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dense(image):
    torch.manual_seed(0)
    model = fw.create(NAME, **ARGUMENTS).train()
    with torch.no_grad():
        model(image.repeat(2, 1, 1, 1))  # Running statistics that are not those of a fresh model.
    return model.eval()


@pytest.fixture(scope="module")
def saved(dense, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    fw.save(
        dense,
        path,
        task="detect",
        labels=("red", "white", "größe"),
        preprocessing={"height": 64, "width": 64},
        metrics={"map_50": 0.25, "ap/red": math.nan},
        notes={"detect": {"metric": "voc_area"}},
    )
    return path


def rewritten(saved, path, change):
    """Write the checkpoint again with a header that `change` has edited."""
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["flyweight"])
    changed = change(header)
    text = changed if isinstance(changed, str) else json.dumps(changed or header)
    save_file(load_file(saved), path, metadata={"flyweight": text})
    return path


def outputs(model, image):
    with torch.inference_mode():
        return model(image)


def test_round_trip(dense, saved, image):
    loaded = fw.load(saved)
    assert not loaded.training
    for want, have in zip(outputs(dense, image), outputs(loaded, image), strict=True):
        assert torch.equal(want, have)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_what_it_says_survives(saved):
    found = read(saved)
    assert found.origin.architecture == NAME
    assert found.origin.arguments == ARGUMENTS
    assert (found.task, found.labels) == ("detect", ("red", "white", "größe"))
    assert found.preprocessing == {"height": 64, "width": 64}
    assert found.metrics["map_50"] == 0.25
    assert math.isnan(found.metrics["ap/red"])
    assert found.notes == {"detect": {"metric": "voc_area"}}
    assert found.plans == ()


def test_two_prunes_one_after_the_other(dense, image, tmp_path):
    model = dense
    for layers in ({ONE: 0.5, TWO: 0.3}, {ONE: 0.25}):
        model = fw.prune(model, fw.plan(fw.trace(model, (image,)), layers))
    path = tmp_path / "twice.safetensors"
    fw.save(model, path)
    loaded = fw.load(path)
    assert loaded.get_parameter(ONE).shape[0] == 18  # 48, then 24, then 18
    for want, have in zip(outputs(model, image), outputs(loaded, image), strict=True):
        assert torch.equal(want, have)
    first, second = read(path).plans
    assert [plan.groups[ONE].channels for plan in (first, second)] == [48, 24]
    # What was loaded can be cut and saved again: its lineage came with it.
    again = fw.prune(loaded, fw.plan(fw.trace(loaded, (image,)), {TWO: 0.5}))
    fw.save(again, path)
    assert len(read(path).plans) == 3


def test_tied_tensors_come_back_tied(dense, saved, tmp_path):
    model = fw.load(saved)
    first, second = (model.get_submodule(f"yolo_block.0.{n}.1.bn") for n in (0, 1))
    second.weight = first.weight
    fw.save(model, tmp_path / "tied.safetensors")
    names = load_file(tmp_path / "tied.safetensors")
    assert "yolo_block.0.0.1.bn.weight" in names
    assert "yolo_block.0.1.1.bn.weight" not in names


def test_loading_never_unpickles(saved, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    fw.load(saved)
    for content in (b"\x80\x04\x95junk", b"PK\x03\x04junk", b""):
        path = tmp_path / "model.pth"
        path.write_bytes(content)
        assert not is_checkpoint(path)
        with pytest.raises(CheckpointError, match=r"whole \.safetensors file.*pickles"):
            fw.load(path)


def test_truncated_anywhere(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "half.safetensors"
    for size in (4, 9, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"whole .safetensors file.*{size} bytes"):
            fw.load(path)


def test_missing(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"must exist. Received '{path}'"):
            fw.load(path)


def test_no_header_of_ours(saved, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file(load_file(saved), path)
    assert is_checkpoint(saved)
    assert not is_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"must carry flyweight's header.*pretrain_weights"):
        fw.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: "{", "header must be what flyweight wrote.*JSONDecodeError"),
        (lambda h: "[1]", "header must be what flyweight wrote"),
        (lambda h: "[" * 100_000, "header must be what flyweight wrote"),
        (lambda h: h.pop("labels") and None, "KeyError: 'labels'"),
        (lambda h: h.update(format=99), "must have format 1 here. Received format 99"),
        (lambda h: h.update(metrics=[1]), "header must be what flyweight wrote"),
        (lambda h: h.update(arguments=7), "header must be what flyweight wrote"),
        (lambda h: h.update(plans=[{"format": 1}]), "header must be what flyweight wrote"),
        (lambda h: h.update(architecture="yolov3_mobilenet_v2"), "Nearest: 'yolov3_mobilenet_v"),
        (
            lambda h: h["arguments"].update(colour=1),
            "architecture 'yolov3.*Received: '?colour|colour",
        ),
        (lambda h: h["arguments"].update(num_classes="x"), "num_classes must be a whole number"),
        (lambda h: h["arguments"].update(width=0.2), r"tensor by tensor.*has shape.*is needed"),
        (lambda h: h["arguments"].update(num_classes=4), r"'yolo_output.0.conv.weight' has shape"),
    ],
)
def test_damaged_or_foreign(saved, tmp_path, change, said):
    path = rewritten(saved, tmp_path / "changed.safetensors", change)
    with pytest.raises(CheckpointError, match=said) as caught:
        fw.load(path)
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_network(saved, tmp_path, dense, image):
    plan = json.loads(fw.plan(fw.trace(dense, (image,)), {ONE: 0.5}).to_json())
    plan["groups"][ONE]["touches"][0][0] = "no.such.weight"
    path = rewritten(saved, tmp_path / "a.safetensors", lambda h: h.update(plans=[plan]))
    with pytest.raises(CheckpointError, match=r"plans must fit.*no.such.weight"):
        fw.load(path)


@pytest.mark.parametrize("kind", ["missing", "unknown"])
def test_other_tensors_change_nothing(dense, saved, tmp_path, kind):
    tensors = load_file(saved)
    if kind == "missing":
        del tensors["backbone.conv1.conv.weight"]
        said = "1 difference, the first: 'backbone.conv1.conv.weight' is missing"
    else:
        tensors["extra"] = torch.zeros(1)
        said = "'extra' is unknown to the model"
    save_file(tensors, tmp_path / "other.safetensors")
    model = fw.create(NAME, **ARGUMENTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        load_weights(model, tmp_path / "other.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_into_a_model_that_has_some(dense, saved, image):
    model = fw.create(NAME, **ARGUMENTS).eval()
    load_weights(model, saved)
    assert torch.equal(outputs(model, image)[0], outputs(dense, image)[0])


def test_a_model_of_unknown_origin(tmp_path):
    with pytest.raises(CheckpointError, match=r"Linear that fw\.create did not make"):
        fw.save(nn.Linear(1, 1), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"must have weights.*meta device"):
        fw.save(rebuild(read(saved)), tmp_path / "a.safetensors")


def test_notes_that_are_no_json(dense, tmp_path):
    with pytest.raises(CheckpointError, match="must be JSON values"):
        fw.save(dense, tmp_path / "a.safetensors", notes={"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_checkpoint_that_was_there(dense, saved, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"No space left on device. Free space"):
        fw.save(dense, path)
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def small_net(num_classes=3, width=8):
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, num_classes))


def test_a_network_of_ones_own_is_opened_with_what_builds_it(tmp_path, image):
    path = tmp_path / "own.safetensors"
    model = fw.create(small_net, num_classes=4).eval()
    plan = fw.plan(fw.trace(model, (image,)), 0.5)
    small = fw.prune(model, plan)
    fw.save(small, path, task="classify")
    assert read(path).origin.arguments == {"num_classes": 4}
    assert torch.equal(fw.load(path, build=small_net)(image), small.eval()(image))
    with pytest.raises(CheckpointError, match=r"test_checkpoint:small_net'.*build=FUNCTION"):
        fw.load(path)
    with pytest.raises(CheckpointError, match="must fit its architecture"):
        fw.load(path, build=lambda num_classes: nn.Linear(3, num_classes))


@pytest.mark.parametrize("name", ["trap:spring", "os:system", "timm/hf-hub:a/b", "trap.sub:x.y"])
def test_nothing_that_a_file_names_is_imported(saved, tmp_path, monkeypatch, name):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = {"command": "touch sprung"}
    path = rewritten(
        saved,
        tmp_path / "evil.safetensors",
        lambda header: {**header, "architecture": name, "arguments": arguments},
    )
    with pytest.raises(CheckpointError, match="nothing that a file names is imported"):
        fw.load(path)
    assert "trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()


def test_constants_that_no_file_has_come_back(tmp_path):
    # Swin's tables of relative positions are buffers that are not saved.
    arguments = {"num_classes": 2, "img_size": 64}
    model = fw.create("timm/swin_tiny_patch4_window7_224", **arguments).eval()
    assert any(buffer.is_floating_point() is False for buffer in model.buffers())
    fw.save(model, tmp_path / "swin.safetensors")
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(fw.load(tmp_path / "swin.safetensors")(images), model(images))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("timm/resnet19", {}, "Nearest: 'timm/resnet18'"),
        ("timm/resnet18", {"checkpoint_path": "x.pth"}, "Received: 'checkpoint_path'"),
        ("unett", {}, "Nearest: 'unet'"),
    ],
)
def test_networks_that_no_library_has(saved, tmp_path, name, arguments, said):
    path = rewritten(
        saved,
        tmp_path / "other.safetensors",
        lambda header: {**header, "architecture": name, "arguments": arguments},
    )
    with pytest.raises(CheckpointError, match=said):
        fw.load(path)
