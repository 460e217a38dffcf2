import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flyweight.config.data import DataConfig
from flyweight.config.preprocessing import Preprocessing
from flyweight.data.batch import BoxPrediction
from flyweight.data.loading import open_set, val_loader
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


def _outline(generator, mask, *, crowd):
    """A segmentation as files of COCO have it: run lengths for crowds, polygons for objects."""
    from pycocotools import mask as lengths

    if crowd or generator.random() < 0.3:
        packed = lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": packed["size"], "counts": packed["counts"].decode()}
    rows, columns = np.nonzero(mask)
    left, top = float(columns.min()), float(rows.min())
    right, bottom = float(columns.max() + 1), float(rows.max() + 1)
    middle = (left + right) / 2
    return [[middle, top, right, bottom, left, bottom]]


def write_random_set(generator, folder, *, images=12, side=160):
    """Write images and a COCO file with crowds, `ignore`, and areas that are not of the boxes."""
    (folder / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3 * key, "name": name} for key, name in enumerate(LABELS, 1)]
    for key in range(1, images + 1):
        height, width = generator.integers(side // 2, side, 2).tolist()
        Image.new("RGB", (width, height)).save(folder / f"train/{key}.png")
        file = {"id": 7 * key, "file_name": f"{key}.png", "width": width, "height": height}
        content["images"].append(file)
        for _ in range(generator.integers(0, 6)):
            crowd = bool(generator.random() < 0.2)
            across, down = generator.integers(4, [width // 2, height // 2]).tolist()
            left, top = generator.integers(0, [width - across, height - down]).tolist()
            mask = np.zeros((height, width), dtype=bool)
            mask[top : top + down, left : left + across] = generator.random((down, across)) < 0.9
            mask[top, left] = mask[top + down - 1, left + across - 1] = True
            # Half a pixel and tenths, as files have them; the box may exceed the image a little.
            shift = float(generator.choice([0, 0.5, 0.1, -0.3]))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": file["id"],
                    "category_id": 3 * int(generator.integers(1, 4)),
                    "bbox": [left + shift, top, across, down],
                    "area": float(generator.choice([0, 900, 1024, 1100.5, 9216, 20000])),
                    "iscrowd": int(crowd),
                    # COCO's own code overwrites this key.
                    **({"ignore": 1} if generator.random() < 0.3 else {}),
                    "segmentation": _outline(generator, mask, crowd=crowd),
                }
            )
    path = folder / "annotations/instances_train.json"
    path.write_text(json.dumps(content))
    return path


def found_in(generator, content, image):
    """Boxes and masks near the objects of an image, some exactly half of one, and others."""
    height, width = image["height"], image["width"]
    mine = [row for row in content["annotations"] if row["image_id"] == image["id"]]
    boxes, labels = [], []
    for row in mine * 2:
        x, y, across, down = row["bbox"]
        labels.append(row["category_id"] // 3 - 1)
        if generator.random() < 0.3:
            boxes.append([x, y, x + across, y + down / 2])  # An IoU of exactly 0.5.
            continue
        noise = generator.normal(0, 4, 4)
        boxes.append((np.array([x, y, x + across, y + down]) + noise).tolist())
    boxes += [[1.0, 2.0, 30.0, 40.0]] * 2
    labels = np.array([*labels, 0, 1])
    boxes = np.float32(boxes)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    masks = np.zeros((len(boxes), height, width), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.clip(min=0).astype(int), strict=True):
        mask[top:bottom, left:right] = True
    scores = np.float32(generator.integers(1, 20, len(boxes)) / 20)  # Many are equal.
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order], labels[order], masks[order]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@pytest.mark.parametrize("seed", range(6))
def test_all_numbers_are_pycocotools_s_from_the_file_on(tmp_path, seed, capsys):
    from pycocotools import mask as lengths
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(seed)
    path = write_random_set(generator, tmp_path)
    content = json.loads(path.read_text())
    config = DataConfig(
        format="coco", root=str(tmp_path), train="annotations/instances_train.json", masks=True
    )
    # The input is smaller than the images, so boxes are scaled there and back.
    images = open_set(config, "train")
    batches = val_loader(images, preprocessing=Preprocessing(height=96, width=96), batch_size=1)
    metric, rows = CocoAp(LABELS), []
    for batch, image in zip(batches, content["images"], strict=True):
        boxes, scores, labels, masks = found_in(generator, content, image)
        found = (torch.from_numpy(part) for part in (boxes, scores, labels, masks))
        metric.update([BoxPrediction(*found)], batch)
        for box, score, label, mask in zip(boxes, scores, labels, masks, strict=True):
            left, top, right, bottom = box.astype(np.float64).tolist()
            row = {"image_id": image["id"], "category_id": 3 * (int(label) + 1)}
            row |= {"score": float(score), "bbox": [left, top, right - left, bottom - top]}
            rows.append((row, lengths.encode(np.asfortranarray(mask.astype(np.uint8)))))
    numbers, truth = metric.compute(), COCO(str(path))
    for kind, prefix in (("bbox", ""), ("segm", "mask_")):
        shapes = [row if kind == "bbox" else {**row, "segmentation": mask} for row, mask in rows]
        if kind == "segm":
            shapes = [{key: row[key] for key in row if key != "bbox"} for row in shapes]
        evaluation = COCOeval(truth, truth.loadRes(shapes), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert 0.005 < evaluation.stats[0] < 0.9
        for name, wanted in zip(STATISTICS, evaluation.stats, strict=True):
            assert numbers.get(prefix + name, -1) == pytest.approx(wanted, abs=1e-9), prefix + name
