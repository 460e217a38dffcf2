import copy
import errno
import json
import math
import os
import pickle
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import flyweight as fw
from flyweight.checkpoint import MetricRecord, is_checkpoint, load_weights, read, rebuild
from flyweight.errors import CheckpointError, FileError
from flyweight.origin import Parent, origin_of

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


@pytest.fixture(scope="module")
def newest(dense, tmp_path_factory):
    """A file that the older format could not express: it has a parent."""
    path = tmp_path_factory.mktemp("newest") / "model.safetensors"
    fw.save(dense, path, metrics={"map_50": 0.25}, parents=[Parent("dense", "ab12")])
    return path


def rewritten(saved, path, change):
    """Write the checkpoint again with a header that `change` has edited."""
    header = header_of(saved)
    changed = change(header)
    text = changed if isinstance(changed, str) else json.dumps(changed or header)
    save_file(load_file(saved), path, metadata={"flyweight": text})
    return path


def prune_transform(plan):
    return {"kind": "prune", "version": 1, "data": plan}


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["flyweight"])


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
    assert found.plans == found.transforms == found.parents == ()
    assert found.metric_records["map_50"] == MetricRecord(0.25)
    assert found.lineage is found.origin


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


def test_the_header_is_the_documented_one(dense, image, tmp_path):
    small = fw.prune(dense, fw.plan(fw.trace(dense, (image,)), {ONE: 0.5}))
    fw.repair_(dense, small, read_plan(small), [image, image])
    fw.save(
        small,
        tmp_path / "a.safetensors",
        metrics={"map": MetricRecord(0.5, data="voc07", date="2026-11-30"), "map_50": math.inf},
        parents=[Parent("dense", "ab12")],
    )
    header = header_of(tmp_path / "a.safetensors")
    assert {**header, "transforms": ...} == {
        "format": 2,
        "architecture": NAME,
        "arguments": ARGUMENTS,
        "transforms": ...,
        "task": "",
        "labels": [],
        "preprocessing": {},
        "metrics": {
            "map": {"value": 0.5, "data": "voc07", "date": "2026-11-30"},
            "map_50": {"value": None, "data": None, "date": None},
        },
        "notes": {},
        "parents": [{"role": "dense", "digest": "ab12"}],
    }
    cut, repaired = header["transforms"]
    assert (cut["kind"], cut["version"], repaired["kind"]) == ("prune", 1, "repair")
    assert cut["data"] == json.loads(read_plan(small).to_json())
    found = read(tmp_path / "a.safetensors")
    assert (found.metrics["map"], len(found.plans), len(found.transforms)) == (0.5, 1, 2)
    assert found.metric_records["map"] == MetricRecord(0.5, "voc07", "2026-11-30")
    assert found.parents == (Parent("dense", "ab12"),)
    loaded = fw.load(tmp_path / "a.safetensors")
    assert torch.equal(outputs(loaded, image)[0], outputs(small, image)[0])
    assert origin_of(loaded) == replace(origin_of(small), parents=found.parents)


def read_plan(model):
    return fw.PruningPlan.from_json(origin_of(model).plans[-1])


def test_an_unknown_part_of_the_description_is_refused(dense, tmp_path):
    with pytest.raises(TypeError, match="'lables'"):
        fw.save(dense, tmp_path / "a.safetensors", lables=("a",))
    assert list(tmp_path.iterdir()) == []


def test_half_a_file_loads_as_float32_and_trains(dense, saved, image, tmp_path):
    path = tmp_path / "half.safetensors"
    fw.save(dense, path, half=True)
    assert path.stat().st_size < 0.55 * saved.stat().st_size
    stored = load_file(path)
    assert {str(t.dtype) for t in stored.values()} == {"torch.float16", "torch.int64"}
    loaded = fw.load(path)
    for name, tensor in loaded.state_dict().items():
        expected = dense.state_dict()[name]
        assert tensor.dtype == expected.dtype
        if tensor.is_floating_point():
            expected = expected.half().float()
        assert torch.equal(tensor, expected), name
    loaded.train()(image.repeat(2, 1, 1, 1))[0].sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in loaded.backbone.parameters())
    into = fw.create(NAME, **ARGUMENTS)
    load_weights(into, path)
    assert torch.equal(into.eval()(image)[0], fw.load(path)(image)[0])


def test_what_does_not_fit_into_half_is_named(dense, tmp_path):
    large = copy.deepcopy(dense)
    with torch.no_grad():
        large.get_parameter(ONE)[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=rf"in '{ONE}'\. Save with half=False"):
        fw.save(large, tmp_path / "a.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_another_kind_are_refused(dense, saved, tmp_path):
    tensors = load_file(saved)
    name = next(name for name in tensors if name.endswith("num_batches_tracked"))
    tensors[name] = tensors[name].float()
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=rf"'{name}' as torch.float32 where torch.int64"):
        load_weights(fw.create(NAME, **ARGUMENTS), tmp_path / "a.safetensors")


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
        (lambda h: "{", "header must be what flyweight wrote.*Expecting property name"),
        (lambda h: "[1]", "header must be what flyweight wrote"),
        (lambda h: "[" * 100_000, "header must be what flyweight wrote"),
        (lambda h: h.pop("labels") and None, "'labels' is missing"),
        (lambda h: h.update(format=99), "must have format 1 or 2 here. Received format 99"),
        (lambda h: h.update(metrics=[1]), "header must be what flyweight wrote"),
        (lambda h: h.update(arguments=7), "header must be what flyweight wrote"),
        (lambda h: h.update(format=True), "header must be what flyweight wrote"),
        (
            lambda h: h.update(transforms=[prune_transform({"format": 1})]),
            "header must be what flyweight wrote",
        ),
        (lambda h: h.update(transforms={"kind": "prune"}), "header must be what flyweight wrote"),
        (lambda h: h.update(transforms=[{"kind": "prune"}]), "'version' is missing"),
        (
            lambda h: h.update(transforms=[{**prune_transform({}), "version": "1"}]),
            "a transform of kind 'prune' and version '1'",
        ),
        (
            lambda h: h.update(transforms=[{"kind": "fold", "version": 1, "data": {}}]),
            r"Received 'fold' of version 1 in '.*'\. Read here: 'prune' up to 1, 'repair' up to 1",
        ),
        (
            lambda h: h.update(transforms=[{**prune_transform({}), "version": 2}]),
            "Received 'prune' of version 2 in .* Use the version of flyweight that wrote it",
        ),
        (lambda h: h.update(parents=[{"role": "dense"}]), "'digest' is missing"),
        (lambda h: h.update(metrics={"map": 0.5}), "header must be what flyweight wrote"),
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
def test_damaged_or_foreign(newest, tmp_path, change, said):
    path = rewritten(newest, tmp_path / "changed.safetensors", change)
    with pytest.raises(CheckpointError, match=said) as caught:
        fw.load(path)
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_network(newest, tmp_path, dense, image):
    plan = json.loads(fw.plan(fw.trace(dense, (image,)), {ONE: 0.5}).to_json())
    plan["groups"][ONE]["touches"][0][0] = "no.such.weight"
    path = rewritten(
        newest, tmp_path / "a.safetensors", lambda h: h.update(transforms=[prune_transform(plan)])
    )
    with pytest.raises(CheckpointError, match=r"transforms must fit.*no.such.weight"):
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
    # It would make a temporary file of its own, which a kill leaves behind.
    monkeypatch.setattr("safetensors.torch.serialize_file", None)
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


def test_loaded_weights_are_aligned_in_memory(tmp_path):
    model = fw.create("blazeface_nas_v2", num_classes=1).eval()
    fw.save(model, tmp_path / "model.safetensors")
    loaded = fw.load(tmp_path / "model.safetensors")
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.state_dict().values())


class Stored(nn.Module):
    def __init__(self, kind="views"):
        super().__init__()
        self.kind, self.layer = kind, nn.Conv2d(3, 8, 1)
        base = torch.arange(8.0)
        if kind == "views":
            self.register_buffer("base", base)
            self.register_buffer("part", base[2:6])
            self.pairs = nn.Parameter(base.view(2, 4))
        elif kind == "sparse":
            self.register_buffer("table", torch.eye(3).to_sparse())
        elif kind == "complex":
            self.register_buffer("table", torch.zeros(3, dtype=torch.complex128))

    def get_extra_state(self):
        return {"a": 1} if self.kind == "extra" else torch.zeros(1)

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return self.layer(x)


def test_views_of_one_memory_are_stored_apart(tmp_path):
    model = fw.create(Stored)
    fw.save(model, tmp_path / "a.safetensors")
    again = fw.load(tmp_path / "a.safetensors", build=Stored)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("extra", r"dense tensors alone.*'_extra_state' \(dict\)"),
        ("sparse", r"dense tensors alone.*'table' \(torch.sparse_coo\)"),
        ("complex", r"types that \.safetensors knows. Received torch\.complex128"),
    ],
)
def test_a_state_that_the_file_cannot_hold_is_refused(tmp_path, kind, said):
    with pytest.raises(CheckpointError, match=said):
        fw.save(fw.create(Stored, kind=kind), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_wrapped_network_is_saved_under_its_own_names(tmp_path, image):
    path = tmp_path / "own.safetensors"
    model = fw.create(small_net).eval()
    fw.save(torch.compile(nn.DataParallel(model), backend="eager"), path)
    assert torch.equal(fw.load(path, build=small_net)(image), model(image))
