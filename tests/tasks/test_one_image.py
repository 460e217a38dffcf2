from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight import zoo
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.images import read_image, read_pixels
from flyweight.errors import DataError
from flyweight.tasks.classify import Classification
from flyweight.tasks.one_image import image_tensor, one_image_batch
from flyweight.tasks.segment import Segmentation


def test_one_picture_batch():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    preprocessing = Preprocessing(height=64, width=64, fit="pad")
    batch = one_image_batch(image, preprocessing, Path("a.png"))
    assert batch.images.shape == (1, 3, 64, 64)
    assert batch.targets[0].original_size == (20, 40)
    assert batch.targets[0].scale == (40 / 64, 20 / 32)
    assert batch.targets[0].path == Path("a.png")


def test_an_image_in_memory_is_what_its_file_is(tmp_path):
    noise = Image.effect_noise((20, 12), 90)
    for name, image in [("rgb.png", noise.convert("RGB")), ("grey.png", noise)]:
        image.save(tmp_path / name)
        expected = read_image(tmp_path / name)
        assert torch.equal(image_tensor(read_pixels(tmp_path / name)), expected)
        assert torch.equal(image_tensor(image), expected)
    with pytest.raises(DataError, match="uint8"):
        image_tensor(np.zeros((4, 4, 3)))


def test_a_task_predicts_and_draws_arrays():
    torch.manual_seed(0)
    preprocessing = Preprocessing(height=32, width=32)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    model = zoo.create("torchvision/resnet18", num_classes=3).eval()
    task = Classification(("a", "b", "c"))
    found = task.predict(model, pixels, preprocessing)
    batch = one_image_batch(image_tensor(pixels), preprocessing)
    with torch.no_grad():
        (expected,) = task.decode(model(batch.images), batch)
    assert torch.equal(found.scores, expected.scores)
    drawn = task.draw(pixels, found, threshold=0.5)
    assert (drawn.shape, drawn.dtype) == (pixels.shape, np.uint8)
    assert not np.array_equal(drawn, pixels)
    image = task.draw(Image.fromarray(pixels), found, threshold=0.5)
    assert np.array_equal(np.asarray(image), drawn)


def test_a_prediction_is_at_the_size_of_the_image():
    task = Segmentation(("a", "b"))
    pixels = np.zeros((30, 50, 3), dtype=np.uint8)
    model = torch.nn.Conv2d(3, 2, 1)
    found = task.predict(model, pixels, Preprocessing(height=16, width=16))
    assert found.labels.shape == (30, 50)
    assert task.draw(pixels, found, threshold=0.5).shape == (30, 50, 3)
