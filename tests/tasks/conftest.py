from pathlib import Path

import pytest
import torch

from flyweight.data.batch import Batch, BoxPrediction, BoxTarget


@pytest.fixture
def make_target():
    """Return a builder of targets from plain lists."""

    def build(
        boxes=(),
        labels=(),
        *,
        weights=None,
        difficult=(),
        crowd=(),
        image_id=0,
        size=None,
        scale=(1.0, 1.0),
    ):
        count = len(labels)
        flags = {"difficult": difficult, "crowd": crowd}
        marked = {name: torch.zeros(count, dtype=torch.bool) for name in flags}
        for name, positions in flags.items():
            marked[name][list(positions)] = True
        return BoxTarget(
            boxes=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.as_tensor(labels, dtype=torch.int64),
            weights=torch.ones(count) if weights is None else torch.as_tensor(weights),
            image_id=image_id,
            path=Path(),
            original_size=size or (100, 100),
            scale=scale,
            **marked,
        )

    return build


@pytest.fixture
def make_batch():
    """Return a builder of batches of black images."""

    def build(*targets, size=(100, 100)):
        return Batch(torch.zeros(len(targets), 3, *size), tuple(targets))

    return build


@pytest.fixture
def make_prediction():
    """Return a builder of predictions from plain lists."""

    def build(boxes=(), scores=(), labels=()):
        return BoxPrediction(
            torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.as_tensor(scores, dtype=torch.float32),
            torch.as_tensor(labels, dtype=torch.int64),
        )

    return build


@pytest.fixture
def random_images(make_target, make_batch, make_prediction):
    """Return a builder of images with objects and plausible predictions of them."""

    def build(seed, *, images=12, num_classes=3, side=100):
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape):
            return torch.rand(*shape, generator=generator)

        made = []
        for image_id in range(images):
            count = int(uniform(1).item() * 7)
            corner, extent = uniform(count, 2) * side * 0.6, uniform(count, 2) * side * 0.35 + 3
            boxes = torch.cat((corner, corner + extent), dim=1).round()
            labels = (uniform(count) * num_classes).long()
            flags = uniform(2, count) < 0.15
            repeats = (uniform(count) * 3).long()
            found = boxes.repeat_interleave(repeats, 0)
            found = found + (uniform(*found.shape) - 0.5) * 12
            guessed = labels.repeat_interleave(repeats)
            confused = uniform(len(guessed)) < 0.2
            guessed = torch.where(confused, (guessed + 1) % num_classes, guessed)
            # One digit, so that equal scores occur.
            scores = uniform(len(guessed)).mul(20).round().div(20)
            order = scores.argsort(descending=True, stable=True)
            target = make_target(
                boxes,
                labels,
                difficult=flags[0].nonzero().flatten().tolist(),
                crowd=flags[1].nonzero().flatten().tolist(),
                image_id=image_id,
                size=(side, side),
            )
            found = torch.cat((found[:, :2], torch.maximum(found[:, 2:], found[:, :2] + 1)), dim=1)
            prediction = make_prediction(found[order], scores[order], guessed[order])
            made.append((prediction, make_batch(target, size=(side, side))))
        return made

    return build
