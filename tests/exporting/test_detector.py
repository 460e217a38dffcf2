"""The whole path for the detector of the zoo: raw maps, decoded boxes, and suppression inside."""

import pytest
import torch

from flyweight.config.tasks import Suppression
from flyweight.exporting.exported_model import ExportedModel
from flyweight.exporting.nms import Detections
from flyweight.exporting.onnx import OnnxConfig, to_onnx
from flyweight.exporting.parity import detection_errors
from flyweight.runtimes.runtime_table import RUNTIMES
from flyweight.tasks.decoding.boxes import suppress
from flyweight.tasks.decoding.yolo import YoloDecoder
from flyweight.zoo.specs import SPECS, create

NAME = "yolov3_mobilenet_v1"
NUM_CLASSES = 4
SIDE = 96
DETECTED = ("boxes", "scores", "labels")
EXAMPLE = (torch.linspace(-2, 2, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE),)
SETTINGS = Suppression(score_threshold=0.2, iou_threshold=0.45, plus_one=True)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = create(NAME, num_classes=NUM_CLASSES, width=0.125)
    # Fresh heads say next to nothing; these give scores and shapes of all kinds.
    with torch.no_grad():
        for output in model.yolo_output:
            output["conv"].weight.normal_(0, 0.6)
            output["conv"].bias.zero_()
    model.train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(4, 3, SIDE, SIDE))
    return model.eval()


def images(seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIDE, SIDE, generator=generator)


def described(card, outputs):
    return card.model_copy(update={"outputs": outputs, "architecture": NAME, "task": "detect"})


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_raw_maps(detector, card, tmp_path, runtime):
    names = ("map_32", "map_16", "map_8")
    config = OnnxConfig(output_names=names, dynamic_batch=True, runtime=runtime)
    path = tmp_path / "raw.onnx"
    result = to_onnx(detector, path, example=EXAMPLE, card=described(card, "raw"), config=config)
    assert tuple(result.max_error) == names
    assert max(result.max_error.values()) < 1e-4
    assert "BatchNormalization" not in result.operators
    with torch.no_grad():
        expected = detector(images(1, count=2))
    found = ExportedModel(path, runtime=runtime).run(images(1, count=2))
    for name, wanted in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_decoded_boxes(detector, card, tmp_path, runtime):
    decoder = YoloDecoder(SPECS[NAME].geometry, NUM_CLASSES)
    path = tmp_path / "decoded.onnx"
    options = {"postprocess": decoder, "config": OnnxConfig(runtime=runtime)}
    result = to_onnx(detector, path, example=EXAMPLE, card=described(card, "decoded"), **options)
    assert tuple(result.max_error) == ("boxes", "scores")
    found = ExportedModel(path, runtime=runtime).run(images(2))
    with torch.no_grad():
        boxes, scores = decoder(detector(images(2)))
    torch.testing.assert_close(found["boxes"], boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found["scores"], scores, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_suppression_inside(detector, card, tmp_path, runtime):
    decoder = YoloDecoder(SPECS[NAME].geometry, NUM_CLASSES)
    path = tmp_path / "nms.onnx"
    result = to_onnx(
        detector,
        path,
        example=EXAMPLE,
        card=described(card, "detections"),
        postprocess=Detections(decoder, score_threshold=0.2, pixel_offset=1.0),
        compare_on=[(images(seed),) for seed in range(3)],
        config=OnnxConfig(runtime=runtime),
    )
    assert tuple(result.max_error)[:3] == ("boxes", "scores", "labels")
    found = ExportedModel(path, runtime=runtime).run(images(7))
    kept = {name: found[name].flatten(0, -2 if name == "boxes" else -1) for name in DETECTED}
    with torch.no_grad():
        boxes, scores = decoder(detector(images(7)))
    expected = dict(zip(DETECTED, suppress(boxes[0], scores[0], SETTINGS), strict=True))
    count = len(expected["scores"])
    assert 10 < count <= SETTINGS.keep
    assert int((kept["labels"] >= 0).sum()) == count
    # Scores that agree to the last digits may change places, so their boxes are paired up first.
    shortened = {name: values[:count] for name, values in kept.items()}
    torch.testing.assert_close(shortened["scores"], expected["scores"], rtol=1e-3, atol=1e-4)
    assert max(detection_errors(expected, shortened, 1e-3).values()) < 1e-3


@pytest.mark.parametrize("objectness", [-1.0, -5.0, -20.0])
@pytest.mark.parametrize("plus_one", [False, True])
def test_suppression_inside_is_the_task_s_with_padding(objectness, plus_one):
    geometry = SPECS[NAME].geometry
    generator = torch.Generator().manual_seed(1)
    maps = []
    for side in (2, 4, 8):
        level = torch.randn(1, 3, 5 + NUM_CLASSES, side, side, generator=generator)
        level[:, :, 4] += objectness
        maps.append(level.flatten(1, 2))
    decoder = YoloDecoder(geometry, NUM_CLASSES)
    settings = Suppression(score_threshold=0.05, plus_one=plus_one)
    head = Detections(decoder, score_threshold=0.05, pixel_offset=1.0 if plus_one else 0.0)
    boxes, scores, labels, counts = (part[0] for part in head(tuple(maps)))
    decoded = decoder(tuple(maps))
    expected = suppress(decoded[0][0], decoded[1][0], settings)
    count = len(expected[0])
    assert count == {-20.0: 0}.get(objectness, count)
    assert (count > 0) == (objectness > -20)
    assert int(counts) == count
    for found, wanted in zip((boxes, scores, labels), expected, strict=True):
        torch.testing.assert_close(found[:count], wanted)
    assert (labels[count:] == -1).all()
