import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest

from flyweight.tasks.metrics.coco_ap import CocoImage
from flyweight.tasks.metrics.coco_intervals import affordable_resamples, resampled_coco
from flyweight.tasks.metrics.voc_intervals import draw_images


def random_images(seed, count, *, classes=3, others=4):
    """Objects, some of them crowds, and detections near them with many equal scores."""
    generator, images = np.random.default_rng(seed), []
    for position in range(count):
        number = int(generator.integers(0, 6))
        corner = generator.uniform(0, 80, (number, 2))
        objects = np.hstack([corner, corner + generator.uniform(6, 60, (number, 2))])
        labels = generator.integers(0, classes, number)
        near = np.repeat(objects, 2, axis=0) + generator.normal(0, 2, (2 * number, 4))
        corner = generator.uniform(0, 80, (others, 2))
        far = np.hstack([corner, corner + generator.uniform(6, 30, (others, 2))])
        found = np.vstack([near, far])
        images.append(
            CocoImage(
                image_id=position,
                object_boxes=objects,
                object_labels=labels,
                ignored=generator.random(number) < 0.15,
                boxes=found,
                scores=generator.permutation(len(found)) / len(found) + generator.random(1) / 97,
                labels=np.concatenate(
                    [np.repeat(labels, 2), generator.integers(0, classes, others)]
                ),
            )
        )
    return images


def pycocotools_map(images, classes):
    """COCO's own code on the same images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def row(image, box, label, **others):
        sides = [float(box[2] - box[0]), float(box[3] - box[1])]
        shape = {"bbox": [float(box[0]), float(box[1]), *sides], "area": sides[0] * sides[1]}
        return {"image_id": image.image_id, "category_id": int(label), **shape, **others}

    truth, found = [], []
    for one in images:
        rows = zip(one.object_boxes, one.object_labels, one.ignored, strict=True)
        truth += [row(one, box, label, iscrowd=int(crowd)) for box, label, crowd in rows]
        rows = zip(one.boxes, one.labels, one.scores, strict=True)
        found += [row(one, box, label, score=float(score), iscrowd=0) for box, label, score in rows]
    tables = []
    with contextlib.redirect_stdout(io.StringIO()):
        for rows in (truth, found):
            table = COCO()
            table.dataset = {
                "images": [{"id": one.image_id} for one in images],
                "categories": [{"id": label} for label in range(classes)],
                "annotations": [{"id": number, **row} for number, row in enumerate(rows, 1)],
            }
            table.createIndex()
            tables.append(table)
        evaluation = COCOeval(*tables, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return max(0.0, evaluation.stats[0])


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_is_pycocotools_s_number_of_the_images_it_contains(seed):
    images = random_images(seed, 12)
    draws = draw_images(len(images), seed=seed)[:4]
    once = np.ones((1, len(images)), dtype=np.int64)
    found = resampled_coco(images[::-1], 3, np.concatenate([once, draws]))
    assert 0.01 < found[0] < 0.95
    assert len({*found}) > 3
    for value, counts in zip(found, np.concatenate([once, draws]), strict=True):
        drawn = [images[index] for index in np.repeat(np.arange(len(images)), counts)]
        copies = [replace(one, image_id=place) for place, one in enumerate(drawn)]
        assert value == pytest.approx(pycocotools_map(copies, 3), abs=1e-9)


def test_classes_that_a_resample_lacks_do_not_count():
    whole = random_images(5, 6, classes=1, others=0)
    rare = replace(whole[0], object_labels=whole[0].object_labels + 1, labels=whole[0].labels + 1)
    images = [rare, *whole[1:]]
    draws = np.array([[0, 2, 1, 1, 1, 1], [6, 0, 0, 0, 0, 0]])
    found = resampled_coco(images, 2, draws)
    for value, counts in zip(found, draws, strict=True):
        drawn = [images[index] for index in np.repeat(np.arange(6), counts)]
        copies = [replace(one, image_id=place) for place, one in enumerate(drawn)]
        assert value == pytest.approx(pycocotools_map(copies, 2), abs=1e-9)


def test_more_than_a_hundred_detections_of_an_image():
    boxes = np.array([(x, y, x + 8, y + 8) for x in range(0, 120, 10) for y in range(0, 120, 10)])
    zeros = np.zeros(144, dtype=np.int64)
    image = CocoImage(0, boxes.astype(float), zeros, zeros > 0, boxes + 0.5, np.linspace(0.1, 1, 144), zeros)  # fmt: skip  # noqa: E501
    assert resampled_coco([image], 1, np.array([[1]]))[0] == pytest.approx(
        pycocotools_map([image], 1), abs=1e-9
    )


def test_nothing_to_find_and_nothing_found():
    box, none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    empty = CocoImage(0, box, none, none > 0, box, np.zeros(0), none)
    assert resampled_coco([empty], 2, np.array([[1], [2]])).tolist() == [0, 0]
    assert resampled_coco([], 2, np.zeros((3, 0), dtype=np.int64)).tolist() == [0, 0, 0]


def test_large_sets_have_fewer_resamples(monkeypatch):
    assert affordable_resamples(10**9, 1) == 100
    images, draws = random_images(1, 4), draw_images(4)
    monkeypatch.setattr("flyweight.tasks.metrics.coco_intervals._MOST_WORK", 0)
    assert len(resampled_coco(images, 3, draws)) == 100
