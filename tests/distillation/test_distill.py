import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distillation.networks import Classifier, pruned, randomised, seeded
from torch import nn

from flyweight.config.training import TrainConfig
from flyweight.data.batch import Batch, ClassTarget
from flyweight.distillation.distill import distill
from flyweight.distillation.strategies import Strategy, Term
from flyweight.distillation.teacher import Teacher
from flyweight.engine.run import Loaders
from flyweight.errors import DataError, TrainingError
from flyweight.tasks.classify import Classification

CONFIG = TrainConfig(
    steps=12,
    batch_size=8,
    learning_rate=0.02,
    schedule="cosine",
    evaluate_every=4,
    checkpoint_every=2,
    ema_decay=0.9,
    accelerator="cpu",
)
LABELS = ("a", "b", "c", "d", "e")


def batch_of(index):
    generator = torch.Generator().manual_seed(index)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    targets = tuple(
        ClassTarget(label=(index + place) % 5, image_id=8 * index + place, original_size=(32, 32))
        for place in range(8)
    )
    return Batch(images, targets)


def train_batches(start, rank, world_size):
    yield from (batch_of(step % 3) for step in range(start, CONFIG.steps))


def val_batches(rank, world_size):
    return [batch_of(9)]


def save(model, metrics, path):
    save_file(model.state_dict(), path)


LOADERS = Loaders(train_batches, val_batches)


def start(folder, loaders=LOADERS, **options):
    dense = randomised(seeded(Classifier))
    student = pruned(copy.deepcopy(dense))
    task = Classification(LABELS)
    teacher = Teacher(dense, precision="32")
    settings = {"save_dir": folder, "save_model": save, "progress": False, **options}
    before = {name: one.clone() for name, one in dense.state_dict().items()}
    found = distill(student, teacher, task, loaders, CONFIG, **settings)
    assert all(torch.equal(one, before[name]) for name, one in dense.state_dict().items())
    return student, found


def test_a_student_learns_and_its_checkpoints_are_its_own(tmp_path):
    student, found = start(tmp_path)
    assert found.fit.steps == 12
    assert found.strategy.name == "auto"
    assert [tap.name for tap in found.plans[0].taps] == list(found.before) == list(found.after)
    assert sum(found.after.values()) > sum(found.before.values())
    saved = load_file(tmp_path / "best_model.safetensors")
    assert saved.keys() == student.state_dict().keys()
    logs = (tmp_path / "logs").rglob("*")
    assert any(path.is_file() for path in logs)


def test_an_interrupted_distillation_ends_with_the_same_bits(tmp_path):
    whole, _ = start(tmp_path / "whole")

    def broken(start, rank, world_size):
        for step in range(start, 7):
            yield batch_of(step % 3)

    with pytest.raises(TrainingError):
        start(tmp_path / "cut", Loaders(broken, val_batches))
    resumed, _ = start(tmp_path / "cut", resume=True)
    theirs = resumed.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in whole.state_dict().items())


def test_images_are_those_of_training_where_nothing_is_evaluated(tmp_path):
    _, found = start(tmp_path, Loaders(train_batches))
    assert found.before
    with pytest.raises(DataError, match="images to compare"):
        start(tmp_path / "none", Loaders(lambda *_: iter(())))
    with pytest.raises(TypeError, match="'colour'"):
        start(tmp_path / "none", colour="red")


class Unnormalised(nn.Module):
    """A classifier whose results for one image do not depend on the other images."""

    def __init__(self, width):
        super().__init__()
        self.deep = nn.Sequential(
            *(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()),
        )
        self.fc = nn.Linear(2 * width, 5)

    def forward(self, images):
        return self.fc(self.deep(images).mean(dim=(2, 3)))


def shared_batches(start, rank, world_size):
    for step in range(start, CONFIG.steps):
        whole = batch_of(step % 3)
        mine = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
        yield Batch(whole.images[mine], whole.targets[mine])


def shared_val_batches(rank, world_size):
    return [batch_of(9)] if rank == 0 else []


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    """Each has half of a batch; student and adaptors are synchronised."""
    losses = Strategy("both", (Term("kl", "outputs"), Term("l2", "features")))
    found = []
    for devices in (1, 2):
        student, teacher = seeded(lambda: Unnormalised(4)), seeded(lambda: Unnormalised(6), 1)
        torch.manual_seed(3)  # Of the adaptors.
        made = distill(
            student,
            Teacher(teacher, precision="32"),
            Classification(LABELS),
            Loaders(shared_batches, shared_val_batches),
            CONFIG.model_copy(update={"devices": devices, "ema_decay": None}),
            strategy=losses,
            save_dir=tmp_path / str(devices),
            progress=False,
        )
        found.append((student.state_dict(), made))
    (one, alone), (two, together) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value)
    assert together.after == pytest.approx(alone.after, rel=1e-4)
    assert together.fit.last_metrics == pytest.approx(alone.fit.last_metrics)
