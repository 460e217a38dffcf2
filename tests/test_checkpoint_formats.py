import copy
import json
import math

import pytest
import torch
from safetensors import safe_open

import flyweight as fw
from flyweight.checkpoint import MetricRecord, read
from flyweight.origin import Parent, note_parent, origin_of

LAYER = "yolo_block.0.0.0.conv.weight"


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return fw.create("yolov3_mobilenet_v1", num_classes=3, width=0.1).eval()


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["flyweight"])


def test_the_older_format_is_written_where_it_says_everything(dense, image, tmp_path):
    small = fw.prune(dense, fw.plan(fw.trace(dense, (image,)), {LAYER: 0.5}))
    path = tmp_path / "a.safetensors"
    fw.save(small, path, metrics={"map": 0.5, "map_50": math.nan})
    header = header_of(path)
    # The keys that flyweight 0.1.0 wrote, and no others.
    assert header.keys() == {
        *("format", "architecture", "arguments", "plans", "task", "labels", "preprocessing"),
        *("metrics", "notes"),
    }
    assert (header["format"], header["metrics"]) == (1, {"map": 0.5, "map_50": None})
    assert header["plans"] == [json.loads(origin_of(small).plans[0])]
    found = read(path)
    assert found.transforms == origin_of(small).transforms
    with torch.inference_mode():
        assert torch.equal(fw.load(path)(image)[0], small(image)[0])
    fw.save(dense, path)
    assert header_of(path)["plans"] == []


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": {"map": MetricRecord(0.5, data="voc07")}},
        {"metrics": {"map": MetricRecord(0.5, date="2026-11-30")}},
        {"parents": [Parent("dense", "ab12")]},
    ],
)
def test_the_newer_format_is_written_where_the_older_one_would_lose_something(
    dense, tmp_path, more
):
    fw.save(dense, tmp_path / "a.safetensors", **more)
    assert header_of(tmp_path / "a.safetensors")["format"] == 2


def test_parents_that_were_noted_are_written_once(dense, tmp_path):
    model, noted, given = copy.deepcopy(dense), Parent("dense", "ab"), Parent("teacher", "cd")
    note_parent(model, noted)
    note_parent(model, noted)
    fw.save(model, tmp_path / "a.safetensors", parents=[given, noted])
    assert read(tmp_path / "a.safetensors").parents == (noted, given)
    fw.save(fw.load(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert read(tmp_path / "b.safetensors").parents == (noted, given)
