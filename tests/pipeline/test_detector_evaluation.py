from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.config.reading import load_config
from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import BoxPrediction
from flyweight.data.layouts.wider import read_wider
from flyweight.data.loading import open_set
from flyweight.errors import ConfigError
from flyweight.pipeline.detector_evaluation import evaluate_detector, finder
from flyweight.pipeline.evaluation import evaluate_model
from flyweight.pipeline.network_plans import build_model
from flyweight.tasks.metrics.wider_ap import WiderAp
from flyweight.tasks.metrics.wider_files import read_faces
from flyweight.tasks.task import Task

PREPROCESSING = Preprocessing(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
FACES = np.array([[30, 20, 80, 75], [100, 100, 260, 220]])


class BrightParts(Task):
    """A task whose network passes images on, and which finds the bright parts in them."""

    name = "detect"
    labels = ("face",)
    primary = "wider_hard"

    def __init__(self):
        self.sizes = []

    def decode(self, outputs, batch):
        self.sizes.append(tuple(outputs.shape[-2:]))
        bright = (outputs[0, 0] > 0).numpy()
        boxes = []
        edges = np.flatnonzero(np.diff([0, *bright.any(axis=1).astype(int), 0]))
        for top, bottom in zip(edges[::2], edges[1::2], strict=True):
            columns = np.flatnonzero(bright[top:bottom].any(axis=0))
            boxes.append([columns[0], top, columns[-1] + 1, bottom])
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        found *= torch.tensor(batch.targets[0].scale).repeat(2)
        count = len(boxes)
        return [BoxPrediction(found, torch.full((count,), 0.8), torch.zeros(count).long())]

    def metric(self):
        return WiderAp()


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "WIDER_val/images/0--Parade"
    folder.mkdir(parents=True)
    pixels = np.zeros((240, 320, 3), dtype=np.uint8)
    for left, top, right, bottom in FACES:
        pixels[top:bottom, left:right] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    Image.new("RGB", (100, 50)).save(folder / "b.png")
    rows = [f"{a} {b} {c - a} {d - b}" for a, b, c, d in FACES]
    text = "\n".join(["0--Parade/a.png", "2", *rows, "0--Parade/b.png", "0", "0 0 0 0", ""])
    (tmp_path / "wider_face_split").mkdir()
    (tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt").write_text(text)
    return read_wider(tmp_path, "val")


@pytest.mark.parametrize(
    ("test", "sizes"),
    [("input", {(64, 64)}), ("native", {(240, 320), (50, 100)})],
)
def test_one_look_at_the_wanted_size(faces, tmp_path, test, sizes):
    task = BrightParts()
    settings = DetectConfig(test=test)
    save_to = tmp_path / "pred"
    found = evaluate_detector(nn.Identity(), task, settings, PREPROCESSING, faces, save_to=save_to)
    assert found == {"wider_easy": 1.0, "wider_medium": 1.0, "wider_hard": 1.0}
    assert set(task.sizes) == sizes
    first, second = read_faces(save_to)
    tolerance = 0.01 if test == "native" else 3
    np.testing.assert_allclose(first.boxes, FACES, atol=tolerance)
    assert (second.event, second.image, len(second.boxes)) == ("0--Parade", "b", 0)


def test_looks_at_several_sizes_agree(faces):
    task = BrightParts()
    settings = DetectConfig(test="multi_scale")
    found = evaluate_detector(nn.Identity(), task, settings, PREPROCESSING, faces)
    assert found["wider_hard"] == 1.0
    assert (240, 320) in task.sizes
    assert (480, 640) in task.sizes
    assert (60, 80) in task.sizes
    # The originals would throw away what one look alone finds.
    assert DetectConfig().drop_singletons is False


def test_refuses_votes_of_several_classes_and_networks_of_one_size():
    task = BrightParts()
    task.labels = ("face", "mask")
    with pytest.raises(ConfigError, match=r"must go with one class\. Received 2"):
        finder(nn.Identity(), task, DetectConfig(test="multi_scale"), PREPROCESSING)

    class Stubborn(nn.Module):
        def forward(self, images):
            return images.reshape(1, 3, 64, 64)

    find = finder(Stubborn(), task, DetectConfig(test="native"), PREPROCESSING)
    image = torch.zeros((3, 10, 12), dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"any size\. Received, for 'a\.png' of 12x10: shape"):
        find(image, Path("x/a.png"))


def test_a_real_detector_is_evaluated_at_the_size_of_its_pictures(tmp_path):
    """On images of the network's own size, both ways are the same."""
    small = ("width=0.1", "input_size=64", "data.size=64", "data.val_count=2")
    _, config = load_config("demo_digits", (*small, "train.num_workers=0"))
    images = open_set(config.data, "val")
    torch.manual_seed(0)
    model = build_model(config)
    usual = evaluate_model(model, config, images)
    settings = config.detect.model_copy(update={"test": "native"})
    native = config.model_copy(update={"detect": settings})
    found = evaluate_model(model, native, images, save_to=tmp_path)
    assert found == pytest.approx(usual, abs=1e-6)
    assert len(list(read_faces(tmp_path))) == 2
