import warnings

import pytest
import torch
from tests.quantization.conftest import Residual, trained_like
from torch import nn

import flyweight as fw
from flyweight.errors import GraphError, PlanError
from flyweight.graph.example_inputs import Example
from flyweight.quantization.calibration_checks import repeated_images


def warned(model, images):
    found = []
    fw.quantize(model, images, say=found.append)
    return found


def test_inputs_as_in_training_are_not_mentioned(residual, images):
    assert warned(residual, images) == []
    # One image, and colours in another order, are no reason either.
    assert warned(residual, images[:1]) == []
    assert warned(residual, images.flip(1)) == []


@pytest.mark.parametrize("scale", [57.0, 1 / 40])
def test_inputs_of_another_scale_are_refused(residual, images, scale):
    with pytest.raises(PlanError, match=r"scale that the network was trained on\. Received inputs"):
        fw.quantize(residual, images * scale)
    with pytest.raises(
        PlanError, match=r"'stem.0.conv2d' .* times the deviation .* Normalise them"
    ):
        fw.quantize(residual, images * scale)


def test_inputs_that_may_be_wrong_are_named(residual, images):
    (small,) = warned(residual, 0.5 + 0.2 * images)
    assert "If that is not intended: Normalise them as in training" in small
    (moved,) = warned(residual, images + 4)
    assert "deviations away" in moved
    with pytest.warns(UserWarning, match="Calibration has inputs from"):
        fw.quantize(residual, images + 4)


def test_statistics_of_a_new_module_say_nothing(images):
    torch.manual_seed(0)
    assert warned(Residual().eval(), 100 * images) == []


def test_without_normalisations_pixels_are_named(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    pixels = (images * 50 + 120).clamp(0, 255).round()
    (note,) = warned(model, pixels)
    assert note.startswith("inputs from 0 to 255 seem to be pixels")
    assert warned(model, images) == []


def test_a_single_value_is_refused_and_equal_images_are_named(residual, images):
    with pytest.raises(PlanError, match=r"single value 0.5. Give images"):
        fw.quantize(residual, torch.full((4, 3, 16, 16), 0.5))
    (note,) = warned(residual, images[:1].repeat(12, 1, 1, 1))
    assert note.startswith("12 calibration images are all equal")


def test_empty_batches_are_no_images(residual):
    for given in ([], torch.empty(0, 3, 16, 16), [torch.empty(0, 3, 16, 16)], iter(())):
        with pytest.raises(PlanError, match=r"must see images. Received none"):
            fw.quantize(residual, given)


def test_images_with_labels_are_explained(residual, images):
    with pytest.raises(GraphError, match="give images alone, without labels"):
        fw.quantize(residual, [(images, torch.zeros(12))])


def test_counting_stops_at_the_first_other_image(images):
    def batches():
        yield Example((images[:1].repeat(3, 1, 1, 1),))
        yield Example((images[:2],))
        raise AssertionError("it goes on")

    assert repeated_images(batches()) == 0
    assert repeated_images([Example((images[:1],))]) == 0
    assert repeated_images([Example((images[:1],)), Example((images[:1],))]) == 2


def test_the_default_is_a_warning_of_python(residual, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fw.quantize(trained_like(residual), images)
