import math

import pytest
import torch
from pydantic import ValidationError
from torchvision.ops import box_iou

from flyweight import zoo
from flyweight.config.tasks import DetectConfig
from flyweight.errors import ConfigError
from flyweight.tasks.decoding.ssd import encode_boxes, make_priors
from flyweight.tasks.detect import METRICS, SsdDetection, YoloDetection
from flyweight.tasks.task import Task
from flyweight.zoo.detectors.blazeface import FACE_GEOMETRY
from flyweight.zoo.detectors.ssd import SSDLITE_GEOMETRY
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY

LABELS = ("cat", "dog")


def logit(probability):
    return math.log(probability / (1 - probability))


def perfect_maps(boxes, labels, side=128):
    """Raw maps that decode to exactly these boxes, given in input pixels."""
    maps = [torch.full((1, 3, 7, side // s, side // s), -20.0) for s in COCO_GEOMETRY.strides]
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        width, height = x1 - x0, y1 - y0
        overlaps = []
        for w, h in COCO_GEOMETRY.anchors:
            shared = min(w, width) * min(h, height)
            overlaps.append(shared / (w * h + width * height - shared))
        best = overlaps.index(max(overlaps))
        scale = next(i for i, mask in enumerate(COCO_GEOMETRY.masks) if best in mask)
        stride = COCO_GEOMETRY.strides[scale]
        x, y = (x0 + x1) / 2 / stride, (y0 + y1) / 2 / stride
        cell = maps[scale][0, COCO_GEOMETRY.masks[scale].index(best), :, int(y), int(x)]
        cell[0], cell[1] = logit(x % 1), logit(y % 1)
        cell[2] = math.log(width / COCO_GEOMETRY.anchors[best][0])
        cell[3] = math.log(height / COCO_GEOMETRY.anchors[best][1])
        cell[4] = cell[5 + label] = 6
    return tuple(level.flatten(1, 2) for level in maps)


BOXES = [(10, 12, 70, 101), (80, 30, 102, 53), (75, 65, 120, 122)]


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_maps_have_no_loss_of_place_and_full_marks(make_target, make_batch, metric):
    task = YoloDetection(LABELS, COCO_GEOMETRY, DetectConfig(metric=metric))
    target = make_target(BOXES, [0, 1, 1], size=(256, 384), scale=(3.0, 2.0))
    batch = make_batch(target, size=(128, 128))
    maps = perfect_maps(BOXES, [0, 1, 1])
    (prediction,) = task.decode(maps, batch)
    assert sorted(prediction.labels.tolist()) == [0, 1, 1]
    expected = target.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0])
    order = prediction.boxes[:, 0].argsort(), expected[:, 0].argsort()
    torch.testing.assert_close(prediction.boxes[order[0]], expected[order[1]], rtol=0, atol=0.01)
    measure = task.metric()
    measure.update([prediction], batch)
    numbers = measure.compute()
    assert numbers[task.primary] == pytest.approx(1, abs=1e-6)
    # Faces have no classes.
    assert numbers.get("ap/cat", 1) == pytest.approx(1, abs=1e-6)
    terms = task.loss(maps, batch)
    assert terms["loss_wh"] < 1e-4
    assert terms["loss"] == sum(terms[name] for name in terms if name != "loss")


def test_loss_falls_and_boxes_are_found_when_a_network_learns_one_picture(make_target, make_batch):
    torch.manual_seed(0)
    model = zoo.create("yolov3_mobilenet_v1", num_classes=2, width=0.1).train()
    task = YoloDetection(LABELS, COCO_GEOMETRY)
    generator = torch.Generator().manual_seed(1)
    batch = make_batch(
        make_target([(8, 8, 40, 56)], [0], size=(64, 64)),
        make_target([(20, 10, 60, 50)], [1], image_id=1, size=(64, 64)),
        size=(64, 64),
    )
    batch.images.copy_(torch.randn(batch.images.shape, generator=generator))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = task.loss(model(batch.images), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    measure = task.metric()
    with torch.no_grad():
        measure.update(task.decode(model(batch.images), batch), batch)
    assert measure.compute()["map_50"] == 1


def test_empty_maps_give_empty_predictions(make_target, make_batch):
    batch = make_batch(make_target(), make_target([(0, 0, 9, 9)], [1]), size=(64, 64))
    maps = [torch.full((2, 21, 64 // s, 64 // s), -30.0) for s in COCO_GEOMETRY.strides]
    for metric in METRICS:
        task = YoloDetection(LABELS, COCO_GEOMETRY, DetectConfig(metric=metric))
        predictions = task.decode(maps, batch)
        assert [len(prediction.boxes) for prediction in predictions] == [0, 0]
        measure = task.metric()
        measure.update(predictions, batch)
        assert measure.compute()[task.primary] == 0


def test_outputs_that_are_not_numbers_give_empty_predictions(make_target, make_batch):
    task = YoloDetection(LABELS, COCO_GEOMETRY)
    batch = make_batch(make_target(), size=(64, 64))
    maps = [torch.full((1, 21, 64 // s, 64 // s), torch.nan) for s in COCO_GEOMETRY.strides]
    assert len(task.decode(maps, batch)[0].boxes) == 0


def test_decoded_boxes_stay_within_the_picture_and_fall_in_score(make_target, make_batch):
    torch.manual_seed(0)
    task = YoloDetection(LABELS, COCO_GEOMETRY)
    batch = make_batch(make_target(size=(50, 90), scale=(90 / 96, 50 / 96)), size=(96, 96))
    maps = [torch.randn(1, 21, 96 // s, 96 // s) for s in COCO_GEOMETRY.strides]
    (prediction,) = task.decode(maps, batch)
    assert 0 < len(prediction.boxes) <= 100
    assert (prediction.boxes >= 0).all()
    assert (prediction.boxes[:, 2] <= 90).all()
    assert (prediction.boxes[:, 3] <= 50).all()
    assert (prediction.scores.diff() <= 0).all()
    assert not prediction.boxes.requires_grad


def test_settings_reach_loss_and_decoding(make_target, make_batch):
    batch = make_batch(make_target(BOXES, [0, 1, 1], size=(128, 128)), size=(128, 128))
    maps = perfect_maps(BOXES, [0, 1, 1])
    plain = YoloDetection(LABELS, COCO_GEOMETRY)
    smooth = YoloDetection(LABELS, COCO_GEOMETRY, DetectConfig(label_smoothing=True))
    assert smooth.loss(maps, batch)["loss_cls"] > plain.loss(maps, batch)["loss_cls"]
    few = YoloDetection(LABELS, COCO_GEOMETRY, DetectConfig(suppression={"keep": 2}))
    assert len(few.decode(maps, batch)[0].boxes) == 2


def test_it_is_a_task():
    task: Task = YoloDetection(LABELS, COCO_GEOMETRY, DetectConfig(metric="coco"))
    assert (task.name, task.labels, task.primary) == ("detect", LABELS, "map")
    assert YoloDetection(LABELS, COCO_GEOMETRY).primary == "map_50"
    assert zoo.SPECS["yolov3_mobilenet_v1"].task == task.name


def test_what_cannot_be_meant():
    with pytest.raises(ConfigError, match="at least one label"):
        YoloDetection((), COCO_GEOMETRY)
    with pytest.raises(ValidationError):
        DetectConfig(metric="voc")
    with pytest.raises(ValidationError):
        DetectConfig(nms=0.5)
    with pytest.raises(ValidationError):
        DetectConfig().metric = "coco"


def test_a_picture_is_drawn(make_prediction):
    from PIL import Image

    task = YoloDetection(LABELS, COCO_GEOMETRY)
    prediction = make_prediction([(10, 20, 100, 80)], [0.8], [1])
    drawn = task.draw(Image.new("RGB", (120, 90), "white"), prediction, threshold=0.5)
    assert drawn.size == (120, 90)
    assert len(drawn.getcolors(4096)) > 2


def perfect_ssd_maps(boxes, labels, geometry, sides):
    """Raw maps that decode to exactly these boxes, given in input pixels."""
    priors = make_priors(sides, geometry)
    wanted = torch.tensor(boxes, dtype=torch.float32)
    offsets, logits = torch.zeros(len(priors), 4), torch.zeros(len(priors), 1 + len(LABELS))
    logits[:, 0] = 20
    for box, label in zip(wanted, labels, strict=True):
        near = box_iou(box[None], priors)[0]
        chosen = torch.unique(torch.cat((near.argmax()[None], (near >= 0.5).nonzero().flatten())))
        offsets[chosen] = encode_boxes(box.expand(len(chosen), 4), priors[chosen], (0.1, 0.2))
        logits[chosen, 0], logits[chosen, 1 + label] = 0.0, 12.0
    maps, start = [], 0
    for (rows, columns), level in zip(sides, geometry.levels, strict=True):
        count = rows * columns * len(level.shapes)
        for values in (offsets, logits):
            cells = values[start : start + count].view(1, rows, columns, -1)
            maps.append(cells.permute(0, 3, 1, 2).contiguous())
        start += count
    return tuple(maps)


SSDS = {
    "ssdlite": (SSDLITE_GEOMETRY, [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]),
    "blazeface": (FACE_GEOMETRY, [(16, 16), (8, 8)]),
}


@pytest.mark.parametrize("kind", SSDS)
def test_perfect_ssd_maps_have_no_loss_of_place_and_full_marks(make_target, make_batch, kind):
    geometry, sides = SSDS[kind]
    task = SsdDetection(LABELS, geometry, DetectConfig(metric="voc_area"))
    target = make_target(BOXES, [0, 1, 1], size=(256, 384), scale=(3.0, 2.0))
    batch = make_batch(target, size=(128, 128))
    maps = perfect_ssd_maps(BOXES, [0, 1, 1], geometry, sides)
    (prediction,) = task.decode(maps, batch)
    assert sorted(prediction.labels.tolist()) == [0, 1, 1]
    expected = target.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0])
    order = prediction.boxes[:, 0].argsort(), expected[:, 0].argsort()
    torch.testing.assert_close(prediction.boxes[order[0]], expected[order[1]], rtol=0, atol=0.01)
    measure = task.metric()
    measure.update([prediction], batch)
    assert measure.compute()[task.primary] == pytest.approx(1, abs=1e-6)
    terms = task.loss(maps, batch)
    assert terms["loss_loc"] < 1e-6
    assert terms["loss_cls"] < 1e-3
    assert terms["loss"] == terms["loss_loc"] + terms["loss_cls"]


def test_what_can_be_chosen_reaches_the_loss_of_ssd(make_target, make_batch):
    geometry, sides = SSDS["blazeface"]
    torch.manual_seed(0)
    maps = [torch.randn(m.shape) for m in perfect_ssd_maps(BOXES, [1, 0, 0], geometry, sides)]
    batch = make_batch(make_target(BOXES, [0, 1, 1]), size=(128, 128))
    losses = {
        float(SsdDetection(LABELS, geometry, DetectConfig(**options)).loss(maps, batch)["loss"])
        for options in ({}, {"match_threshold": 0.35}, {"negatives": 100.0})
    }
    assert len(losses) == 3


def test_ssd_learns_one_picture(make_target, make_batch):
    torch.manual_seed(0)
    model = zoo.create("blazeface_nas", num_classes=2, kernel_size=3).train()
    task = SsdDetection(LABELS, FACE_GEOMETRY, DetectConfig(match_threshold=0.35))
    batch = make_batch(
        make_target([(8, 8, 40, 40)], [0], size=(64, 64)),
        make_target([(20, 10, 44, 34)], [1], image_id=1, size=(64, 64)),
        size=(64, 64),
    )
    batch.images.copy_(torch.randn(batch.images.shape))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = task.loss(model(batch.images), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    best = [found.labels[0].item() for found in task.decode(model(batch.images), batch)]
    assert best == [0, 1]
