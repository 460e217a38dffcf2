from pathlib import Path

import pytest
import torch

from flyweight.config.tasks import DetectConfig, Suppression, TaskConfig
from flyweight.data.batch import Batch, BoxTarget
from flyweight.errors import ConfigError
from flyweight.tasks.by_name import task_for
from flyweight.tasks.metrics.run_lengths import run_lengths
from flyweight.tasks.two_stage_detection import MaskFinisher, TwoStageDecoder, TwoStageDetection
from flyweight.zoo import create
from flyweight.zoo.specs import SPECS

LABELS = ("a", "b", "c")
CONFIG = DetectConfig(
    metric="coco", suppression=Suppression(score_threshold=0.05, iou_threshold=0.5)
)
SCENES = [([[6, 6, 30, 30], [32, 30, 60, 60]], [0, 2]), ([[16, 10, 56, 36]], [1])]


def scenes(side=64, scale=(1.0, 1.0)):
    """Two images of bright rectangles, whose colour is their class."""
    images, targets = torch.zeros(2, 3, side, side), []
    for index, (boxes, labels) in enumerate(SCENES):
        masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
        for place, (left, top, right, bottom) in enumerate(boxes):
            images[index, labels[place], top:bottom, left:right] = 2
            masks[place, top:bottom, left:right] = True
        none = torch.zeros(len(boxes), dtype=torch.bool)
        targets.append(
            BoxTarget(
                boxes=torch.tensor(boxes, dtype=torch.float32),
                labels=torch.tensor(labels),
                weights=torch.ones(len(boxes)),
                difficult=none,
                crowd=none,
                image_id=index,
                path=Path(),
                original_size=(round(side * scale[1]), round(side * scale[0])),
                scale=scale,
                masks=masks,
                outlines=run_lengths(masks),
            )
        )
    return Batch(images, tuple(targets))


def build(name, **more):
    torch.manual_seed(0)
    options = {"num_classes": 3, "proposals": 16, "samples": 16, "freeze_norm": False, **more}
    model = create(name, width={"f": 0.125, "m": 0.125, "c": 0.25}[name[0]], **options)
    return model, task_for("detect", SPECS[name].geometry, LABELS, TaskConfig(detect=CONFIG))


def test_the_table_knows_it():
    _, task = build("faster_rcnn_r50")
    assert isinstance(task, TwoStageDetection)
    assert (task.name, task.primary, task.labels) == ("detect", "map", LABELS)


def test_training_hands_over_the_objects_and_evaluation_does_not():
    model, task = build("mask_rcnn_r50")
    batch = scenes()
    samples = task.forward(model.train(), batch)
    assert samples.masks is not None
    terms = task.loss(samples, batch)
    assert "masks" in terms
    assert terms["loss"].isfinite()
    found = task.forward(model.eval(), batch)
    assert found.masks.shape == (2, 100, 14, 14)


def test_the_loss_at_rest_leaves_the_network_as_it_is():
    model, task = build("faster_rcnn_r50")
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = task.loss_at_rest(model, scenes())["loss"]
    loss.backward()
    learns = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in learns) > 0
    assert not any(module.training for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_boxes_and_masks_are_placed_on_the_picture():
    model, task = build("mask_rcnn_r50")
    batch = scenes(scale=(3.0, 2.0))
    with torch.no_grad():
        outputs = task.forward(model.eval(), batch)
    predictions = task.decode(outputs, batch)
    first = predictions[0]
    count = len(first.scores)
    assert 0 < count <= 100
    assert first.masks.shape == (count, 128, 192)
    wanted = outputs.boxes[0, :count] * torch.tensor([3.0, 2, 3, 2])
    torch.testing.assert_close(first.boxes, wanted)
    assert (first.scores >= 0.05).all()
    assert torch.equal(first.scores, first.scores.sort(descending=True).values)


def test_suppression_is_the_config_s():
    model, task = build("faster_rcnn_r50")
    batch = scenes()
    with torch.no_grad():
        outputs = task.forward(model.eval(), batch)
    few = DetectConfig(suppression=Suppression(score_threshold=0.0, keep=5))
    strict = TwoStageDetection(LABELS, task.geometry, few)
    assert [len(one.scores) for one in strict.decode(outputs, batch)] == [5, 5]
    assert strict.decode(outputs, batch)[0].masks is None


def test_the_decoder_gives_what_decode_suppresses():
    for name in ("faster_rcnn_r50", "mask_rcnn_r50", "cascade_rcnn_mobilenet_v3_320"):
        model, task = build(name)
        with torch.no_grad():
            boxes, scores = TwoStageDecoder()(model.eval()(scenes().images))
        assert scores.shape == (2, 16, 3)
        assert boxes.shape == ((2, 16, 4) if name.startswith("c") else (2, 16, 3, 4))
        assert isinstance(task.decoder(), TwoStageDecoder)
        assert isinstance(task.finisher(), MaskFinisher) == (name == "mask_rcnn_r50")


def test_letters():
    model, _ = build("faster_rcnn_r50")
    geometry = SPECS["faster_rcnn_r50"].geometry
    with pytest.raises(ConfigError, match="at least one label"):
        TwoStageDetection((), geometry)
    other = TwoStageDetection(("a", "b"), geometry)
    batch = scenes()
    with pytest.raises(ConfigError, match="A detector of 2 labels"):
        other.decode(other.forward(model.eval(), batch), batch)
    with pytest.raises(ConfigError, match="A detector of 2 labels"):
        other.loss(other.forward(model.train(), batch), batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["faster_rcnn_r50", "mask_rcnn_r50", "cascade_rcnn_mobilenet_v3_320"]
)
def test_two_pictures_are_learnt_by_heart(name):
    model, task = build(name, **({} if name.startswith("c") else {"freeze_at": 0}))
    batch = scenes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(260 if name.startswith("c") else 100):  # Enough on every processor.
        terms = task.loss(task.forward(model, batch), batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    with torch.no_grad():
        for _ in range(20):  # running statistics catch up
            task.forward(model, batch)
        metric = task.metric()
        metric.update(task.decode(task.forward(model.eval(), batch), batch), batch)
    numbers = metric.compute()
    assert numbers["map_50"] > 0.9
    assert ("mask_map_50" in numbers) == (name == "mask_rcnn_r50")
    assert numbers.get("mask_map_50", 1.0) > 0.9
