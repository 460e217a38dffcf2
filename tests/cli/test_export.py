from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from flyweight.config.reading import load_config
from flyweight.pipeline.inputs import Saver
from flyweight.pipeline.model_source import ModelSource
from flyweight.pipeline.network_plans import build_model

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=3")
CONFIG = load_config("demo_digits", SMALL)[1]
TOLD = ("-c", "demo_digits", "-o", *SMALL)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "digits.safetensors"
    Saver(CONFIG, tuple("0123456789"), "detect")(build_model(CONFIG), {}, path)
    return path


@pytest.fixture
def exported(monkeypatch):
    """Do not export; return what would have been."""
    calls = []

    def export(loaded, path, *, end, name, images, runtime, facts):
        call = SimpleNamespace(loaded=loaded, path=path, images=images, runtime=runtime)
        calls.append(call)
        return SimpleNamespace(
            path=path, size_bytes=2**20, sidecar="s", max_error={"a": 2e-6}, notes=()
        )

    monkeypatch.setattr("flyweight.pipeline.stages.export.export_model", export)
    return calls


def test_an_export_is_compared_on_pictures_of_the_config(flyweight, saved, exported):
    answer = flyweight("export", *TOLD, "-w", saved)
    assert answer.err.splitlines() == [
        f"exporting {saved}",
        "comparing on 2 images of digits/val and on random inputs",
    ]
    assert answer.out.splitlines() == [
        "saved output/demo_digits/model.onnx (1.00 MiB), description s",
        "largest relative error against PyTorch 2.0e-06",
    ]
    assert [image.shape for image in exported[0].images] == [(3, 64, 64)] * 2


def test_an_export_without_a_config_is_compared_on_random_inputs(flyweight, saved, exported):
    answer = flyweight("export", "-w", saved)
    assert "comparing on random inputs; -c CONFIG compares" in answer.err
    assert exported[0].images == ()
    assert exported[0].path == Path("output/digits/model.onnx")


def test_an_export_where_the_data_are_not(flyweight, saved, exported):
    answer = flyweight("export", *TOLD, "data.format=voc", "data.root=none", "-w", saved)
    assert answer.status == 0
    assert "comparing on random inputs, without images: A VOC set must be a fol" in answer.err
    assert exported[0].images == ()


def test_an_export_of_the_settings_told(flyweight, saved, exported):
    told = (*TOLD, "input_size=32", "detect.suppression.keep=7")
    flyweight("export", *told, "-w", saved)
    loaded = exported[0].loaded
    assert (loaded.preprocessing.height, loaded.task.config.suppression.keep) == (32, 7)
    assert exported[0].images[0].shape == (3, 32, 32)


def test_where_a_model_is_found(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert ModelSource("", ("weights=digits",), "").find() == ("digits", Path("digits.safetensors"))
    with_config = ModelSource("demo_digits", SMALL, "digits")
    assert with_config.find() == ("demo_digits", Path("digits.safetensors"))
    assert with_config.named == ("demo_digits", CONFIG)
    name, path, loaded = replace(with_config, overrides=(*SMALL, "mean=[0,0,0]")).open()
    assert (name, path) == ("demo_digits", Path("digits.safetensors"))
    assert loaded.preprocessing == CONFIG.preprocessing.model_copy(update={"mean": (0, 0, 0)})
