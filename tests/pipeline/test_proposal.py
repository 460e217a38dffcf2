import pytest

from flyweight.data.survey import Survey
from flyweight.pipeline.proposal import propose


def found(images=1000, labels=("a", "b", "c"), sizes=((480, 640),), share=None):
    return Survey(images, labels, {}, sizes, share)


@pytest.mark.parametrize(("side", "input_size"), [(28, 96), (160, 160), (1200, 224)])
def test_a_classifier_has_inputs_like_its_images(side, input_size):
    made = propose("classify", "imagefolder", found(sizes=((side, side + 9),)))
    assert (made.model, made.input_size) == ("torchvision/mobilenet_v2", input_size)


@pytest.mark.parametrize(("share", "input_size"), [(0.3, 320), (0.054, 448), (0.01, 608)])
def test_small_objects_have_larger_inputs(share, input_size):
    made = propose("detect", "voc", found(share=share, sizes=((640, 640),)))
    assert (made.model, made.input_size) == ("yolov3_mobilenet_v1", input_size)


def test_faces():
    made = propose("detect", "wider", found(labels=("face",), share=0.1))
    assert (made.model, made.input_size) == ("blazeface", 320)


def test_a_segmenter_keeps_the_shape_of_the_images():
    made = propose("segment", "masks", found(sizes=((360, 480),)))
    assert (made.model, made.input_size) == ("deeplabv3p", (352, 480))
    assert "fit" not in made.network
    shapes = found(labels=("a", "b"), sizes=((100, 300), (300, 100), (200, 200)))
    made = propose("segment", "masks", shapes)
    assert (made.model, made.input_size, made.network["fit"]) == ("unet", 192, "pad")


def test_steps_are_epochs_within_limits():
    made = propose("classify", "imagefolder", found(images=3200))
    assert (made.steps, made.batch_size, made.epochs) == (4000, 32, 40)
    few = propose("classify", "imagefolder", found(images=3))
    assert (few.steps, few.batch_size) == (400, 3)
    assert propose("classify", "imagefolder", found(images=10**6)).steps == 20_000
