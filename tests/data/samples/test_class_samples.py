import pytest
import torch

from flyweight.config.data import AugmentConfig, ClassAugment
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.images import image_of, prepare
from flyweight.data.layouts.digit_sets import make_digit_classes
from flyweight.data.loading import train_loader, val_loader
from flyweight.data.samples.class_samples import ClassTrainSamples
from flyweight.data.samples.sampling import SampleRequest

PREPROCESSING = Preprocessing(height=40, width=32, fit="crop", mean=(0.5,) * 3, std=(0.5,) * 3)
RICH = ClassAugment(rand_augment=(2, 9), color=0.3, mixup_alpha=0.4)


@pytest.fixture(scope="module")
def digits():
    return make_digit_classes("train", 9, size=48)


def batches(digits, *, workers=0, start=0, augment=RICH):
    return list(
        train_loader(
            digits,
            preprocessing=PREPROCESSING,
            augment=AugmentConfig(classify=augment),
            num_workers=workers,
            batch_size=4,
            steps=5,
            start_step=start,
        )
    )


def same(one, other):
    labels = [[(t.label, t.mixed) for t in batch.targets] for batch in (one, other)]
    return torch.equal(one.images, other.images) and labels[0] == labels[1]


def test_a_resumed_stream_is_the_same_whatever_the_workers(digits):
    whole, resumed = batches(digits), batches(digits, workers=1, start=3)
    assert len(whole) == 5
    assert all(same(*pair) for pair in zip(whole[3:], resumed, strict=True))
    assert not same(whole[0], whole[1])


def test_shapes_and_blended_classes(digits):
    batch = batches(digits)[0]
    assert batch.images.shape == (4, 3, 40, 32)
    assert batch.images.dtype == torch.float32
    for target in batch.targets:
        other, share = target.mixed
        assert digits.records[target.image_id].label == target.label
        assert 0 <= other < 10
        assert 0 <= share <= 1


def test_mixup_blends_the_pictures_too(digits):
    plain = AugmentConfig.off()
    mixed = plain.model_copy(
        update={"classify": ClassAugment(crop="none", flip=False, mixup_alpha=5)}
    )
    samples = [ClassTrainSamples(digits, PREPROCESSING, augment, 0) for augment in (plain, mixed)]
    alone = {i: samples[0][SampleRequest(i, 0, (40, 32), 0)][0] for i in range(9)}
    image, target = samples[1][SampleRequest(2, 0, (40, 32), 0)]
    share = target.mixed[1]
    blends = [share * alone[2] + (1 - share) * alone[i] for i in range(9) if i != 2]
    assert min(float((image - blend).abs().max()) for blend in blends) < 1e-5


def test_nothing_varies_where_everything_is_off(digits):
    samples = ClassTrainSamples(digits, PREPROCESSING, AugmentConfig.off(), 0)
    image, target = samples[SampleRequest(1, 3, (40, 32), 0)]
    stretched = PREPROCESSING.model_copy(update={"fit": "stretch"})
    assert torch.equal(image, prepare(image_of(digits, 1), stretched))
    assert target.mixed is None


def test_evaluation_sees_the_centre(digits):
    (batch,) = val_loader(digits, preprocessing=PREPROCESSING, batch_size=9)
    assert torch.equal(batch.images[4], prepare(image_of(digits, 4), PREPROCESSING))
    assert [target.label for target in batch.targets] == [r.label for r in digits.records]
    assert {target.original_size for target in batch.targets} == {(48, 48)}


@pytest.mark.parametrize(
    "augment", [{"crop_scale": (0.5, 0.2)}, {"crop_ratio": (2, 1)}, {"color": 2}]
)
def test_settings_that_cannot_be_meant(augment):
    with pytest.raises(ValueError, match=next(iter(augment))):
        ClassAugment(**augment)
