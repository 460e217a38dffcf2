import json
from pathlib import Path

import onnx
import pytest
import yaml
from onnx import helper

from flyweight.config.preprocessing import Preprocessing
from flyweight.errors import ExportError, FileError
from flyweight.exporting.model_card import (
    ModelCard,
    from_properties,
    read_metadata,
    sidecar_path,
    to_properties,
    to_sidecar,
)


def test_a_card_survives_its_properties(card):
    assert from_properties(to_properties(card), path=Path("x")) == card
    plain = ModelCard(name="x")
    assert from_properties(to_properties(plain), path=Path("x")) == plain


def test_every_property_is_json_under_our_name(card):
    properties = to_properties(card)
    assert all(name.startswith("flyweight.") for name in properties)
    assert json.loads(properties["flyweight.labels"]) == ["cat", "Hündin", "a: b"]
    assert json.loads(properties["flyweight.preprocessing"])["height"] == 16


def test_the_sidecar_has_the_originals_keys(card):
    text = to_sidecar(card, {"images": ["batch", 3, 16, 16]}, {"logits": ["batch", 4]})
    values = yaml.safe_load(text)
    assert list(values)[:5] == ["mode", "arch", "draw_threshold", "Preprocess", "label_list"]
    assert values["label_list"] == ["cat", "Hündin", "a: b"]
    assert [step["type"] for step in values["Preprocess"]] == ["Resize", "Normalize", "Permute"]
    assert values["Preprocess"][0]["target_size"] == [16, 16]
    assert values["Preprocess"][1]["mean"] == [0.485, 0.456, 0.406]
    assert values["inputs"] == {"images": ["batch", 3, 16, 16]}


def test_the_sidecar_has_means_in_the_order_of_rgb_whatever_the_networks(card):
    caffe = Preprocessing(
        height=16, width=16, mean=(104, 117, 123), value_range=255, channels="bgr", fit="pad"
    )
    text = to_sidecar(card.model_copy(update={"preprocessing": caffe}), {}, {})
    resize, normalise, permute = yaml.safe_load(text)["Preprocess"]
    assert (resize["keep_ratio"], resize["fit"]) == (True, "pad")
    assert (normalise["is_scale"], normalise["mean"]) == (False, [123, 117, 104])
    assert permute["to_bgr"]


def test_where_the_sidecar_lies():
    assert sidecar_path("runs/small.onnx") == Path("runs/small.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flyweight.format": "2"}, "must have format 1. Received: 2"),
        ({"flyweight.labels": "["}, "must be readable"),
        ({"flyweight.draw_threshold": "7"}, "must be readable"),
        ({"flyweight.surprise": "1"}, "must be readable"),
    ],
)
def test_damaged_descriptions_are_one_line(card, change, message):
    with pytest.raises(ExportError, match=message) as error:
        from_properties({**to_properties(card), **change}, path=Path("x.onnx"))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="must be a readable ONNX file"):
        read_metadata(tmp_path / "no.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    with pytest.raises(ExportError, match="must be an ONNX file"):
        read_metadata(text)
    foreign = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), foreign)
    with pytest.raises(ExportError, match="must carry flyweight's description"):
        read_metadata(foreign)
