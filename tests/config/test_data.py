import pytest
from pydantic import ValidationError

from flyweight.config.data import AugmentConfig, ClassAugment, DataConfig, MapAugment


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "voc"}, "root must name the folder of the voc set"),
        ({"format": "coco", "root": ""}, "root must name the folder of the coco set"),
        ({"format": "digits", "labels": ()}, "labels must name at least one class"),
        ({"format": "digits", "labels": ("a", "a")}, "labels must name every class once"),
        ({"format": "digits", "size": 8}, "greater than or equal to 32"),
        ({"format": "digits", "seed": -1}, "greater than or equal to 0"),
        ({"format": "digits", "train_count": 0}, "greater than 0"),
        ({"format": "digits", "sise": 160}, "Extra inputs are not permitted"),
        ({"format": "widder"}, "Input should be 'voc', 'coco', 'wider', 'yolo'"),
    ],
)
def test_data_config_refuses(arguments, message):
    with pytest.raises(ValidationError, match=message):
        DataConfig(**arguments)


def test_augment_defaults_are_the_originals():
    augment = AugmentConfig()
    assert (augment.mixup_alpha, augment.mixup_epochs) == (1.5, 250)
    assert (augment.expand_ratio, augment.max_boxes) == (4.0, 50)
    assert augment.color_distort
    assert augment.crop


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixup_alpha": 0},
        {"expand_ratio": 0.5},
        {"multi_scale": ()},
        {"multi_scale": (0,)},
        {"brightness": (1.5, 0.5)},
        {"contrast": (-1, 1)},
        {"hue_degrees": 200},
        {"anchor_scales": (16,)},
        {"anchor_scales": (32, 16)},
        {"anchor_scales": (0, 16)},
    ],
)
def test_augment_refuses(wrong):
    with pytest.raises(ValidationError):
        AugmentConfig(**wrong)


def test_configs_are_values():
    config = DataConfig(format="voc", root="x", labels=["a", "b"])
    assert config == DataConfig.model_validate_json(config.model_dump_json())
    with pytest.raises(ValidationError):
        config.root = "y"
    assert AugmentConfig.off() == AugmentConfig.model_validate_json(
        AugmentConfig.off().model_dump_json()
    )


@pytest.mark.parametrize(
    ("changed", "detect", "classify", "segment"),
    [
        ({}, True, True, True),
        ({"flip": True}, False, True, True),
        ({"random_interpolation": True}, False, True, True),
        ({"multi_scale": (320,)}, True, True, True),
        ({"multi_scale": (320, 352)}, False, False, False),
        ({"max_boxes": 50}, True, True, True),
        ({"classify": ClassAugment(crop="none")}, True, False, True),
        ({"segment": MapAugment(scale=(1.0, 1.0))}, True, True, False),
    ],
)
def test_which_augmentations_repeat_their_images(changed, detect, classify, segment):
    config = AugmentConfig.off().model_copy(update=changed)
    found = [config.repeats(task) for task in ("detect", "classify", "segment")]
    assert found == [detect, classify, segment]
