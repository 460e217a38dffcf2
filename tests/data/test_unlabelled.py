import pytest
import torch
from PIL import Image

from flyweight.config.preprocessing import Preprocessing
from flyweight.data.unlabelled import ImageBatches
from flyweight.errors import DataError


def test_pictures_come_in_batches_as_often_as_asked(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 10), (50 * number, 0, 0)).save(path)
    batches = ImageBatches(paths, Preprocessing(height=8, width=16), 2)
    assert len(batches) == 3
    first, again = list(batches), list(batches)
    assert [tuple(batch.shape) for batch in first] == [(2, 3, 8, 16), (2, 3, 8, 16), (1, 3, 8, 16)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    reds = torch.cat(first)[:, 0].mean((1, 2))
    assert bool((reds.diff() > 0).all())


def test_a_broken_picture_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        list(ImageBatches([path], Preprocessing(height=8, width=8), 1))
