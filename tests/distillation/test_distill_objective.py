import torch
from tests.distillation.networks import pruned, randomised, yolo

from flyweight.config.tasks import DetectConfig
from flyweight.data.batch import Batch, BoxTarget
from flyweight.distillation.distill_objective import DistillObjective
from flyweight.distillation.distiller import Distiller
from flyweight.distillation.head_losses import split_distill
from flyweight.distillation.teacher import Teacher
from flyweight.tasks.detect import YoloDetection
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY


def box_batch(side=64, count=2):
    target = BoxTarget(
        boxes=torch.tensor([[8.0, 8.0, 40.0, 30.0]]),
        labels=torch.tensor([1]),
        weights=torch.ones(1),
        difficult=torch.zeros(1, dtype=torch.bool),
        crowd=torch.zeros(1, dtype=torch.bool),
        image_id=0,
        original_size=(side, side),
    )
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(count, 3, side, side, generator=generator), (target,) * count)


def test_the_first_loss_is_that_of_the_task_plus_that_of_the_originals():
    """The form of the original tools' log: loss, distill_loss."""
    dense = randomised(yolo())
    student = pruned(dense, side=64)
    task = YoloDetection(("a", "b"), COCO_GEOMETRY, DetectConfig())
    teacher = Teacher(dense, precision="32")
    batch = box_batch()
    for name in ("split", "l2"):
        distiller = Distiller(student, teacher, strategy=name, example=batch.images, watch=False)
        objective = DistillObjective(task, distiller)
        assert objective.fixed[0] is dense
        assert objective.modules is None
        objective.attach(student.eval())
        found = objective.loss(student, batch)
        with torch.no_grad():
            ours, theirs = student(batch.images), dense(batch.images)
        task_loss = task.loss(ours, batch)["loss"]
        taught = found[f"distill/{name}_distill"]
        torch.testing.assert_close(found["task"], task_loss)
        torch.testing.assert_close(found["loss"], task_loss + taught)
        if name == "split":
            torch.testing.assert_close(taught, split_distill(ours, theirs, 2))
        else:
            squares = sum((t - s).square().mean() for s, t in zip(ours, theirs, strict=True))
            torch.testing.assert_close(taught, 100 * squares)
        assert {"loss_xy", "loss_wh", "loss_obj", "loss_cls"} < found.keys()
        found["loss"].backward()
        assert all(parameter.grad is None for parameter in dense.parameters())
        assert not any(module._forward_hooks for module in student.modules())


def test_boxes_and_masks_reach_the_losses_that_need_them():
    dense = randomised(yolo())
    student = pruned(dense, side=64)
    batch = box_batch()
    distiller = Distiller(student, dense, strategy="fgd", example=batch.images, watch=False)
    task = YoloDetection(("a", "b"), COCO_GEOMETRY, DetectConfig())
    objective = DistillObjective(task, distiller)
    found = objective.loss(student.train(), batch)
    assert torch.isfinite(found["distill/fgd"])
    assert objective.modules is distiller.modules


def test_the_teacher_runs_before_the_student():
    """Afterwards, each of its layers would ask the system for memory."""
    dense = randomised(yolo())
    student = pruned(dense, side=64)
    batch, order = box_batch(), []
    distiller = Distiller(student, dense, strategy="l2", example=batch.images, watch=False)
    for name, model in (("teacher", dense), ("student", student)):
        model.register_forward_hook(lambda *_, name=name: order.append(name))
    task = YoloDetection(("a", "b"), COCO_GEOMETRY, DetectConfig())
    DistillObjective(task, distiller).loss(student.train(), batch)
    assert order == ["teacher", "student"]
