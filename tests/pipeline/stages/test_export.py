from dataclasses import replace

import pytest
import torch

from flyweight import pipeline
from flyweight.config.reading import load_config
from flyweight.data.loading import open_set
from flyweight.errors import ConfigError, DataError, ExportError
from flyweight.pipeline.inputs import Saver, open_checkpoint
from flyweight.pipeline.network_plans import build_model
from flyweight.pipeline.stages.export import (
    WEIGHTS,
    export_model,
    images_to_compare,
    require_own_export,
)

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=3")
CONFIG = load_config("demo_digits", SMALL)[1]
LABELS = tuple("0123456789")

pytestmark = [
    # torch's exporter, not ours.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
]


class RightOnNoise(torch.nn.Module):
    """Answers otherwise, outside of an export, where an image is no noise round zero."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        outputs = self.network(images)
        if not torch.compiler.is_exporting() and images.mean().abs() > 0.1:
            return tuple(output + 1 for output in outputs)
        return outputs


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    Saver(CONFIG, LABELS, "detect")(build_model(CONFIG), {"map_50": 0.5}, path)
    return open_checkpoint(path)


@pytest.fixture(scope="module")
def images():
    return images_to_compare(open_set(CONFIG.data, "val"), CONFIG.preprocessing)


def test_pictures_to_compare(images):
    assert [image.shape for image in images] == [(3, 64, 64)] * 2
    assert not torch.equal(*images)
    assert all(image.mean().abs() > 0.1 for image in images)


def test_a_picture_to_compare_that_does_not_decode(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG")
    box_set = open_set(CONFIG.data, "val")
    broken = replace(box_set, records=(replace(box_set.records[0], path=path),))
    with pytest.raises(DataError, match=r"a\.png"):
        images_to_compare(broken, CONFIG.preprocessing)


@pytest.mark.slow
def test_an_export_that_differs_on_pictures_alone(loaded, images, tmp_path):
    wrong = replace(loaded, model=RightOnNoise(loaded.model))
    found = export_model(wrong, tmp_path / "noise.onnx", end="raw")
    assert max(found.max_error.values()) < 1e-3
    with pytest.raises(ExportError, match=r"must agree with PyTorch.*Nothing was written"):
        export_model(wrong, tmp_path / "pictures.onnx", end="raw", images=images)
    assert not (tmp_path / "pictures.onnx").exists()


def test_an_unknown_end(loaded, tmp_path):
    with pytest.raises(ConfigError, match="--end must be one of"):
        export_model(loaded, tmp_path / "a.onnx", end="boxes")


def test_the_export_of_another_checkpoint_is_not_replaced(loaded, tmp_path):
    target, checkpoint = tmp_path / "model.onnx", tmp_path / "a.safetensors"
    require_own_export(target, "one", checkpoint)
    export_model(loaded, target, end="raw", facts={WEIGHTS: "one"})
    require_own_export(target, "one", checkpoint)
    with pytest.raises(ExportError, match=r"other weights \(digest one\).*add --overwrite"):
        require_own_export(target, "two", checkpoint)
    target.write_bytes(b"something else")
    with pytest.raises(ExportError, match="which is of unknown weights"):
        require_own_export(target, "one", checkpoint)


def test_two_checkpoints_of_one_name_do_not_share_a_file(tmp_path):
    paths = [tmp_path / folder / "best_model.safetensors" for folder in ("one", "two")]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        config = load_config("demo_digits", (*SMALL, f"train.seed={seed}"))[1]
        Saver(config, LABELS, "detect")(build_model(config), {}, path)
    one, other = (pipeline.ModelSource(weights=str(path)) for path in paths)
    first = pipeline.export(one, tmp_path / "out", end="raw")
    with pytest.raises(ExportError, match="must not replace the export of another checkpoint"):
        pipeline.export(other, tmp_path / "out", end="raw")
    again = pipeline.export(one, tmp_path / "out", end="decoded")
    assert again.path == first.path
    before = again.path.read_bytes()
    pipeline.export(other, tmp_path / "out", end="raw", overwrite=True)
    assert again.path.read_bytes() != before
