import numpy as np
import pytest
import torch

from flyweight.config.data import AugmentConfig, MapAugment
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import IGNORE
from flyweight.data.images import prepare
from flyweight.data.layouts.digit_sets import make_digit_maps
from flyweight.data.loading import train_loader, val_loader
from flyweight.data.records import MapRecord, MapSet
from flyweight.data.samples.map_samples import MapTrainSamples, MapValSamples
from flyweight.data.samples.sampling import SampleRequest

PREPROCESSING = Preprocessing(height=48, width=64, fit="pad", interpolation="bilinear")


@pytest.fixture(scope="module")
def digits():
    return make_digit_maps("train", 7, size=40)


def painted(height, width):
    """Return a set of one image whose red channel is 20 times its labels."""
    rows, columns = np.mgrid[:height, :width]
    labels = ((rows * 3 // height) * 4 + columns * 4 // width).astype(np.uint8)
    image = np.stack([labels * 20, labels, labels], axis=2)
    record = MapRecord(None, None, None, height=height, width=width)
    names = tuple("abcdefghijkl")
    return MapSet("m", names, (record,), image=lambda _: image, label_map=lambda _: labels)


def batches(digits, *, workers=0, start=0):
    augment = AugmentConfig(segment=MapAugment(color=0.3))
    return list(
        train_loader(
            digits,
            preprocessing=PREPROCESSING,
            augment=augment,
            num_workers=workers,
            batch_size=3,
            steps=5,
            start_step=start,
        )
    )


def test_a_resumed_stream_is_the_same_whatever_the_workers(digits):
    whole, resumed = batches(digits), batches(digits, workers=1, start=2)
    for one, other in zip(whole[2:], resumed, strict=True):
        assert torch.equal(one.images, other.images)
        for mine, theirs in zip(one.targets, other.targets, strict=True):
            assert torch.equal(mine.labels, theirs.labels)
    assert whole[0].images.shape == (3, 3, 48, 64)
    assert whole[0].targets[0].labels.shape == (48, 64)
    assert whole[0].targets[0].full is None


def test_labels_move_with_their_pixels():
    preprocessing = PREPROCESSING.model_copy(
        update={"interpolation": "nearest", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    )
    augment = AugmentConfig(segment=MapAugment(scale=(0.5, 3.0)))
    samples = MapTrainSamples(painted(60, 80), preprocessing, augment, 0)
    padded = flipped = 0
    for epoch in range(20):
        image, target = samples[SampleRequest(0, epoch, (48, 64), 0)]
        inside = target.labels != IGNORE
        padded += int(not inside.all())
        # Plain "nearest" rounds down where labels take their centre, hence the borders.
        red = (image[0] * 255 / 20).round()[inside]
        assert (red == target.labels[inside]).float().mean() > 0.85
        row = target.labels[0][target.labels[0] != IGNORE]
        flipped += int(len(row) > 0 and int(row[0]) > int(row[-1]))
        assert (image[:, ~inside] == 0).all()
    assert 0 < padded < 20
    assert 0 < flipped < 20


def test_a_part_smaller_than_the_input():
    augment = AugmentConfig(segment=MapAugment(crop=(24, 16)))
    samples = MapTrainSamples(painted(60, 80), PREPROCESSING, augment, 0)
    image, target = samples[SampleRequest(0, 0, (48, 64), 0)]
    assert image.shape == (3, 24, 16)
    assert target.labels.shape == (24, 16)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_evaluation_keeps_the_labels_of_the_picture(fit):
    preprocessing = PREPROCESSING.model_copy(update={"fit": fit})
    images = painted(60, 40)
    image, target = MapValSamples(images, preprocessing, (0,))[0]
    original = torch.from_numpy(images.image(0)).permute(2, 0, 1)
    assert torch.equal(image, prepare(original, preprocessing))
    assert torch.equal(target.full, torch.from_numpy(images.label_map(0)))
    assert target.full.dtype == torch.uint8
    assert (target.labels == IGNORE).any() == (fit == "pad")
    assert target.scale == ((40 / 64, 60 / 48) if fit == "stretch" else (1.25, 1.25))


def test_nothing_varies_where_everything_is_off(digits):
    samples = MapTrainSamples(digits, PREPROCESSING, AugmentConfig.off(), 0)
    (batch,) = val_loader(digits, preprocessing=PREPROCESSING, batch_size=7)
    image, target = samples[SampleRequest(1, 0, (48, 64), 0)]
    assert torch.equal(target.labels, batch.targets[1].labels)
    seen = target.labels != IGNORE
    assert torch.equal(image[:, seen], batch.images[1][:, seen])
    # The colour of the canvas is a whole number, so its normalised value is nearly zero.
    assert float(image[:, ~seen].abs().max()) < 0.01


def test_scales_must_rise():
    with pytest.raises(ValueError, match="scale must rise"):
        MapAugment(scale=(2.0, 1.0))
