import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from flyweight.tasks.metrics.voc_map import VocMap, average_precision, inclusive_iou

LABELS = ("a", "b", "c")


def overlap(first, second):
    """The IoU of two boxes by counting the pixels of inclusive whole-number ranges."""
    pixels = [
        set(itertools.product(range(x0, x1 + 1), range(y0, y1 + 1)))
        for x0, y0, x1, y1 in (first, second)
    ]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


def plain_iou(first, second):
    across = min(first[2], second[2]) - max(first[0], second[0]) + 1
    down = min(first[3], second[3]) - max(first[1], second[1]) + 1
    if across <= 0 or down <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return across * down / (sum(areas) - across * down)


def brute_force(images, label, method):
    """VOC's rules over the whole set at once, as the development kit goes about it."""
    objects, rows, count = {}, [], 0
    for prediction, batch in images:
        (target,) = batch.targets
        mine = (target.labels == label).nonzero().flatten().tolist()
        skipped = (target.difficult | target.crowd).tolist()
        objects[target.image_id] = [
            {"box": target.boxes[i].tolist(), "skip": skipped[i], "claimed": False} for i in mine
        ]
        count += sum(not skipped[i] for i in mine)
        for i in (prediction.labels == label).nonzero().flatten().tolist():
            box = prediction.boxes[i].tolist()
            rows.append((-prediction.scores[i].item(), target.image_id, i, box))
    if not count:
        return None
    outcomes = []
    for _, image_id, _, box in sorted(rows):
        candidates = objects[image_id]
        overlaps = [plain_iou(box, candidate["box"]) for candidate in candidates]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] <= 0.5:
            outcomes.append(False)
        elif not candidates[best]["skip"]:
            outcomes.append(not candidates[best]["claimed"])
            candidates[best]["claimed"] = True
    precision, recall, right = [], [], 0
    for position, outcome in enumerate(outcomes, start=1):
        right += outcome
        precision.append(right / position)
        recall.append(right / count)
    if method == "11point":
        levels = [k / 10 for k in range(11)]
        beyond = [
            [p for p, r in zip(precision, recall, strict=True) if r >= level] for level in levels
        ]
        return sum(max(values, default=0) for values in beyond) / 11
    total, before = 0.0, 0.0
    for position, now in enumerate(recall):
        height = max(precision[position:]) if method == "area" else precision[position]
        total += (now - before) * height
        before = now
    return total


@pytest.mark.parametrize("method", ["11point", "area", "integral"])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_vocs_on_random_pictures(random_images, seed, method):
    images = random_images(seed, images=25)
    metric = VocMap(LABELS, method=method)
    for prediction, batch in images:
        metric.update([prediction], batch)
    expected = {
        f"ap/{name}": brute_force(images, index, method) for index, name in enumerate(LABELS)
    }
    found = metric.compute()
    assert found["map_50"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert 0.05 < found["map_50"] < 0.99
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_integral_is_scikit_learns_average_precision(outcomes):
    outcomes = np.array(outcomes)
    if not outcomes.any():
        assert average_precision(outcomes, 3, "integral") == 0
        return
    scores = -np.arange(len(outcomes))
    expected = average_precision_score(outcomes, scores)
    found = average_precision(outcomes, int(outcomes.sum()), "integral")
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 10))
def test_methods_are_ordered_and_within_bounds(outcomes, unfound):
    outcomes = np.array(outcomes, dtype=bool)
    count = max(int(outcomes.sum()) + unfound, 1)
    integral = average_precision(outcomes, count, "integral")
    area = average_precision(outcomes, count, "area")
    assert 0 <= integral <= area + 1e-12 <= 1 + 1e-9
    assert 0 <= average_precision(outcomes, count, "11point") <= 1 + 1e-12


def test_eleven_points_by_hand():
    # Recalls .5, .5, 1; precisions 1, 1/2, 2/3: six points at 1, five at 2/3.
    outcomes = np.array([True, False, True])
    expected = (6 * 1 + 5 * 2 / 3) / 11
    assert average_precision(outcomes, 2, "11point") == pytest.approx(expected)
    assert average_precision(outcomes, 2, "area") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_recall_of_exactly_three_tenths_counts():
    outcomes = np.array([True, True, True])
    assert average_precision(outcomes, 10, "11point") == pytest.approx(4 / 11)


box = st.tuples(*[st.integers(0, 8)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(box, box)
def test_overlap_counts_the_last_pixel(first, second):
    found = inclusive_iou(np.array([first], dtype=float), np.array([second], dtype=float))
    assert found[0, 0] == pytest.approx(overlap(first, second))


def test_the_last_pixel_decides(make_target, make_batch, make_prediction):
    # 10 of 19 pixels with the last one, 9 of 18 without.
    metric = VocMap(("a",))
    target = make_target([(0, 0, 9, 18)], [0])
    metric.update([make_prediction([(0, 0, 9, 9)], [0.9], [0])], make_batch(target))
    assert metric.compute()["map_50"] == 1


def test_a_duplicate_is_wrong(make_target, make_batch, make_prediction):
    metric = VocMap(("a",), method="area")
    target = make_target([(0, 0, 50, 50), (60, 60, 90, 90)], [0, 0])
    boxes = [(0, 0, 50, 50), (1, 1, 50, 50), (60, 60, 90, 90)]
    metric.update([make_prediction(boxes, [0.9, 0.8, 0.7], [0, 0, 0])], make_batch(target))
    assert metric.compute()["map_50"] == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_difficult_objects_neither_count_nor_punish(make_target, make_batch, make_prediction, flag):
    metric = VocMap(("a",))
    target = make_target([(0, 0, 50, 50), (60, 60, 90, 90)], [0, 0], **{flag: [0]})
    boxes = [(0, 0, 50, 50), (1, 1, 50, 50), (60, 60, 90, 90)]
    metric.update([make_prediction(boxes, [0.9, 0.8, 0.7], [0, 0, 0])], make_batch(target))
    assert metric.compute()["map_50"] == 1


def test_boxes_are_compared_in_pixels_of_the_picture_on_disk(
    make_target, make_batch, make_prediction
):
    metric = VocMap(("a",))
    target = make_target([(10, 10, 50, 50)], [0], size=(200, 400), scale=(4.0, 2.0))
    metric.update([make_prediction([(40, 20, 200, 100)], [0.9], [0])], make_batch(target))
    assert metric.compute()["map_50"] == 1


def test_nothing_to_find_and_nothing_found(make_target, make_batch, make_prediction):
    assert VocMap(LABELS).compute() == {"map_50": 0.0}
    metric = VocMap(LABELS)
    metric.update([make_prediction()], make_batch(make_target()))
    assert metric.compute() == {"map_50": 0.0}
    metric.update([make_prediction()], make_batch(make_target([(0, 0, 9, 9)], [1])))
    assert metric.compute() == {"map_50": 0.0, "ap/b": 0.0}


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_of_a_set_give_the_numbers_of_the_whole(random_images, seed):
    images = random_images(seed, images=20)
    whole, shares = VocMap(LABELS), [VocMap(LABELS) for _ in range(3)]
    for index, (prediction, batch) in enumerate(images):
        whole.update([prediction], batch)
        shares[index % 3].update([prediction], batch)
    for first, second in itertools.permutations((1, 2)):
        gathered = VocMap(LABELS)
        for share in (shares[first], shares[0], shares[second]):
            gathered.merge(pickle.loads(pickle.dumps(share.state())))
        assert gathered.compute() == whole.compute()
