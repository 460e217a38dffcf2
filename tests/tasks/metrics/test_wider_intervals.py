import numpy as np
import pytest
from tests.tasks.metrics.test_wider_ap import slow_ap, slow_curve

from flyweight.data.layouts.wider_truth import LEVELS
from flyweight.tasks.metrics.voc_intervals import draw_images
from flyweight.tasks.metrics.wider_ap import WiderAp
from flyweight.tasks.metrics.wider_intervals import resampled_wider


def random_images(seed, count):
    """Detections near faces, some of which do not count, as `WiderAp.add` takes them."""
    draw, images = np.random.default_rng(seed), []
    for _ in range(count):
        corner = draw.integers(0, 60, (draw.integers(0, 5), 2)).astype(float)
        faces = np.concatenate([corner, corner + draw.integers(3, 60, corner.shape)], axis=1)
        boxes = np.repeat(faces, 2, axis=0) + draw.integers(-2, 3, (2 * len(faces), 4))
        # Best first, as the slow protocol takes them.
        scores = np.sort(draw.integers(1, 40, len(boxes)) / 40)[::-1]
        images.append((boxes, scores, faces, draw.random((len(faces), 3)) < 0.7))
    return images


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_the_slow_protocol_on_the_images_it_contains(seed):
    images, metric = random_images(seed, 8), WiderAp()
    for position, image in enumerate(images):
        metric.add(*image, image_id=position)
    once = np.ones((1, len(images)), dtype=np.int64)
    draws = np.concatenate([once, draw_images(len(images), seed=seed)[:5]])
    for column, level in enumerate(LEVELS):
        found = resampled_wider(metric.images[::-1], draws, level)
        assert found[0] == metric.compute()[f"wider_{level}"]
        for value, counts in zip(found, draws, strict=True):
            copies = [images[index] for index in np.repeat(np.arange(len(images)), counts)]
            scores = np.concatenate([scores for _, scores, _, _ in copies])
            sums, total = slow_curve(copies, column, scores.min(), scores.max())
            assert value == pytest.approx(slow_ap(sums, total), abs=1e-12)


def test_a_resample_without_faces_and_large_sets(monkeypatch):
    images, metric = random_images(1, 3), WiderAp()
    for position, image in enumerate(images):
        metric.add(*image, image_id=position)
    empty = next(index for index, image in enumerate(random_images(1, 30)) if not len(image[2]))
    metric.add(*random_images(1, 30)[empty], image_id=3)
    assert resampled_wider(metric.images, np.array([[0, 0, 0, 4]])).tolist() == [0]
    monkeypatch.setattr("flyweight.tasks.metrics.wider_intervals._MOST_WORK", 0)
    assert len(resampled_wider(metric.images, draw_images(4))) == 100
    assert resampled_wider((), np.zeros((2, 0), dtype=np.int64)).tolist() == [0, 0]
