import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from flyweight.tasks.metrics.coco_ap import STATISTICS, CocoAp, CocoImage, coco_numbers
from flyweight.tasks.metrics.run_lengths import run_lengths

LABELS = ("a", "b", "c")


def pycocotools_numbers(images, num_classes):
    """COCO's own code on the same images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def row(box, label, **others):
        size = (box[2] - box[0], box[3] - box[1])
        shape = {"bbox": [box[0], box[1], *size], "area": size[0] * size[1]}
        return {**shape, "category_id": int(label), **others}

    annotations, results = [], []
    for image in images:
        of = {"image_id": image.image_id}
        boxes = zip(image.object_boxes, image.object_labels, image.ignored, strict=True)
        annotations += [row(box, label, iscrowd=int(crowd), **of) for box, label, crowd in boxes]
        found = zip(image.boxes, image.labels, image.scores, strict=True)
        results += [row(box, label, score=float(score), **of) for box, label, score in found]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    for number, result in enumerate(results, start=1):
        result.update(id=number, iscrowd=0)
    shared = {
        "images": [{"id": image.image_id} for image in images],
        "categories": [{"id": index} for index in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        tables = []
        for rows in (annotations, results):
            table = COCO()
            table.dataset = {**shared, "annotations": rows}
            table.createIndex()
            tables.append(table)
        evaluation = COCOeval(*tables, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = []
    for index in range(num_classes):
        defined = precision[:, :, index][precision[:, :, index] > -1]
        classes.append(defined.mean() if defined.size else -1)
    return evaluation.stats, classes


def as_image(prediction, batch):
    (target,) = batch.targets
    return CocoImage(
        image_id=target.image_id,
        object_boxes=target.boxes.double().numpy(),
        object_labels=target.labels.numpy(),
        ignored=(target.crowd | target.difficult).numpy(),
        boxes=prediction.boxes.double().numpy(),
        scores=prediction.scores.double().numpy(),
        labels=prediction.labels.numpy(),
    )


def check(images, num_classes=3):
    found = coco_numbers(images, num_classes)
    statistics, classes = pycocotools_numbers(images, num_classes)
    assert tuple(found.statistics) == STATISTICS
    np.testing.assert_allclose(list(found.statistics.values()), statistics, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.classes, classes, rtol=0, atol=1e-9)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_cocos_on_random_pictures(random_images, seed):
    side = 100 if seed % 2 else 400
    made = random_images(seed, images=20, side=side)
    found = check([as_image(*pair) for pair in made])
    assert 0.005 < found.statistics["map"] < 0.95


@pytest.mark.parametrize(("objects", "detections"), [(0, 0), (0, 3), (3, 0)])
def test_it_is_cocos_where_something_is_missing(objects, detections):
    boxes = np.array([(0, 0, 10, 10), (5, 5, 50, 60), (20, 20, 90, 90)], dtype=float)
    labels = np.array([0, 1, 1])
    image = CocoImage(
        image_id=0,
        object_boxes=boxes[:objects],
        object_labels=labels[:objects],
        ignored=np.zeros(objects, dtype=bool),
        boxes=boxes[:detections],
        scores=np.linspace(0.9, 0.5, 3)[:detections],
        labels=labels[:detections],
    )
    found = check([image])
    assert found.statistics["map"] == (0 if objects else -1)
    assert found.classes[2] == -1


def test_more_than_a_hundred_detections():
    boxes = np.array([(x, y, x + 8, y + 8) for x in range(0, 120, 10) for y in range(0, 120, 10)])
    image = CocoImage(
        image_id=4,
        object_boxes=boxes.astype(float),
        object_labels=np.zeros(144, dtype=np.int64),
        ignored=np.zeros(144, dtype=bool),
        boxes=boxes + 0.5,
        scores=np.linspace(1, 0.1, 144),
        labels=np.zeros(144, dtype=np.int64),
    )
    assert check([image], 1).statistics["mar_100"] < 0.7


def test_no_pictures():
    found = coco_numbers([], 2)
    assert set(found.statistics.values()) == {-1.0}
    assert found.classes == (-1.0, -1.0)


def test_the_metric_gives_the_defined_numbers(random_images):
    made = random_images(1, images=10)
    metric = CocoAp((*LABELS, "never"))
    for prediction, batch in made:
        metric.update([prediction], batch)
    numbers = coco_numbers([as_image(*pair) for pair in made], 4)
    found = metric.compute()
    assert found["map"] == pytest.approx(numbers.statistics["map"], abs=1e-9)
    assert found["ap/a"] == pytest.approx(numbers.classes[0], abs=1e-9)
    assert "ap/never" not in found
    # No side is long enough for COCO's "large".
    assert "map_large" not in found
    assert "map_small" in found


def test_boxes_are_compared_in_pixels_of_the_picture_on_disk(
    make_target, make_batch, make_prediction
):
    metric = CocoAp(("a",))
    target = make_target([(10, 10, 50, 50)], [0], size=(200, 400), scale=(4.0, 2.0))
    metric.update([make_prediction([(40, 20, 200, 100)], [0.9], [0])], make_batch(target))
    found = metric.compute()
    assert found["map"] == pytest.approx(1)
    assert found["map_large"] == pytest.approx(1)


def test_crowds_and_difficult_objects_neither_count_nor_punish(
    make_target, make_batch, make_prediction
):
    boxes = [(0, 0, 40, 40), (50, 50, 90, 90)]
    for flag in ("crowd", "difficult"):
        metric = CocoAp(("a",))
        target = make_target(boxes, [0, 0], **{flag: [0]})
        found = make_prediction([(1, 1, 20, 20), (50, 50, 90, 90)], [0.9, 0.8], [0, 0])
        metric.update([found], make_batch(target))
        assert metric.compute()["map"] == pytest.approx(1)


def test_nothing_to_find_and_nothing_found(make_target, make_batch, make_prediction):
    assert CocoAp(LABELS).compute() == {"map": 0.0}
    metric = CocoAp(LABELS)
    metric.update([make_prediction()], make_batch(make_target()))
    assert metric.compute() == {"map": 0.0}
    metric.update(
        [make_prediction([(0, 0, 9, 9)], [0.5], [2])], make_batch(make_target(image_id=1))
    )
    assert metric.compute() == {"map": 0.0}


def test_shares_of_a_set_give_the_numbers_of_the_whole(random_images):
    whole, shares = CocoAp(LABELS), [CocoAp(LABELS) for _ in range(2)]
    for index, (prediction, batch) in enumerate(random_images(3, images=14)):
        whole.update([prediction], batch)
        shares[index % 2].update([prediction], batch)
    shares[1].merge(shares[0].state())
    assert shares[1].compute() == whole.compute()


def blobs(seed, count, side=60):
    """Filled ellipses that reach into one another."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    masks = np.zeros((count, side, side), dtype=bool)
    for mask in masks:
        x, y = generator.uniform(10, side - 10, 2)
        across, down = generator.uniform(5, 16, 2)
        mask[((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1] = True
    return torch.from_numpy(masks)


def frames(masks):
    spots = [torch.where(mask) for mask in masks]
    edges = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in spots]
    return torch.tensor(edges, dtype=torch.float32).reshape(-1, 4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_masks_are_measured_as_pycocotools_does(make_target, make_batch, make_prediction, capsys):
    from pycocotools import mask as lengths
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    metric, objects, found = CocoAp(["a", "b"]), [], []
    for image in range(4):
        masks, labels = blobs(image, 4), [0, 1, 0, 1]
        shifted = torch.roll(masks, shifts=(image, 2), dims=(1, 2))[:3]
        target = make_target(frames(masks), labels, image_id=image, size=(60, 60))
        target = replace(target, outlines=run_lengths(masks))
        scores = [0.9 - 0.1 * image, 0.7, 0.5]
        prediction = replace(make_prediction(frames(shifted), scores, [0, 1, 1]), masks=shifted)
        metric.update([prediction], make_batch(target, size=(60, 60)))
        objects += [(image, label, mask.numpy()) for label, mask in zip(labels, masks, strict=True)]
        rows = zip([0, 1, 1], scores, shifted, strict=True)
        found += [(image, label, score, mask.numpy()) for label, score, mask in rows]
    oracle = COCO()
    oracle.dataset = {
        "images": [{"id": image, "height": 60, "width": 60} for image in range(4)],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "iscrowd": 0,
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
                "segmentation": lengths.encode(np.asfortranarray(mask)),
            }
            for number, (image, label, mask) in enumerate(objects, start=1)
        ],
    }
    oracle.createIndex()
    results = oracle.loadRes(
        [
            {
                "image_id": image,
                "category_id": label,
                "score": score,
                "segmentation": lengths.encode(np.asfortranarray(mask)),
            }
            for image, label, score, mask in found
        ]
    )
    evaluation = COCOeval(oracle, results, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    numbers = metric.compute()
    assert 0.1 < numbers["mask_map"] < 0.9
    for name, wanted in zip(STATISTICS, evaluation.stats, strict=True):
        assert numbers.get(f"mask_{name}", -1) == pytest.approx(wanted, abs=1e-6), name
    again = CocoAp(["a", "b"])
    again.merge(metric.state())
    assert again.compute() == numbers


def test_masks_are_not_measured_where_either_side_has_none(random_images):
    metric = CocoAp(["a", "b", "c"])
    for prediction, batch in random_images(0):
        metric.update([prediction], batch)
    assert not any(name.startswith("mask") for name in metric.compute())
