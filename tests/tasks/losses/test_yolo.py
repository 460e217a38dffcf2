import itertools
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.tasks.losses.yolo import YoloLossSettings, yolo_loss
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY

TERMS = ("loss_xy", "loss_wh", "loss_obj", "loss_cls")


def cross_entropy(logit, wanted):
    return max(logit, 0) - logit * wanted + math.log1p(math.exp(-abs(logit)))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def iou(first, second):
    """IoU of two boxes given as centre and size."""
    sides = []
    for axis in (0, 1):
        low = max(first[axis] - first[axis + 2] / 2, second[axis] - second[axis + 2] / 2)
        high = min(first[axis] + first[axis + 2] / 2, second[axis] + second[axis + 2] / 2)
        sides.append(high - low)
    if min(sides) <= 0:
        return 0.0
    inside = sides[0] * sides[1]
    return inside / (first[2] * first[3] + second[2] * second[3] - inside)


def objects_of(target, width, height):
    found = []
    rows = zip(
        target.boxes.tolist(),
        target.labels.tolist(),
        target.weights.tolist(),
        target.crowd.tolist(),
        strict=True,
    )
    for (x0, y0, x1, y1), label, weight, crowd in rows:
        box = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        if box[2] > 1e-6 and box[3] > 1e-6:
            found.append((box, label, weight, crowd))
    return found


def loop_objectness(parts, held, objects, shapes, threshold):
    rows, columns = len(parts[0][0]), len(parts[0][0][0])
    total = 0.0
    for anchor, row, column in itertools.product(range(3), range(rows), range(columns)):
        tx, ty, tw, th, objectness = (parts[anchor][k][row][column] for k in range(5))
        weight = held.get((anchor, row, column))
        if weight is not None and weight > 1e-5:
            total += weight * cross_entropy(objectness, 1)
            continue
        box = (
            (sigmoid(tx) + column) / columns,
            (sigmoid(ty) + row) / rows,
            math.exp(tw) * shapes[anchor][0],
            math.exp(th) * shapes[anchor][1],
        )
        near = max((iou(box, other) for other in objects), default=0)
        if weight is not None or near <= threshold:
            total += cross_entropy(objectness, 0)
    return total


def loop_loss(maps, targets, num_classes, threshold=0.7, low=0.0):
    """The loss as the original operator's loops compute it, one cell at a time."""
    geometry, totals = COCO_GEOMETRY, dict.fromkeys(TERMS, 0.0)
    for scale, raw in enumerate(maps):
        count, _, rows, columns = raw.shape
        stride = geometry.strides[scale]
        width, height = columns * stride, rows * stride
        parts = raw.reshape(count, 3, 5 + num_classes, rows, columns).double().tolist()
        anchors = [(w / width, h / height) for w, h in geometry.anchors]
        for image, target in enumerate(targets):
            objects = objects_of(target, width, height)
            held = {}
            for box, label, weight, crowd in objects:
                overlaps = [iou((0, 0, *box[2:]), (0, 0, *anchor)) for anchor in anchors]
                best = overlaps.index(max(overlaps))
                if crowd or best not in geometry.masks[scale]:
                    continue
                anchor = geometry.masks[scale].index(best)
                column = min(int(box[0] * columns), columns - 1)
                row = min(int(box[1] * rows), rows - 1)
                cell = [parts[image][anchor][k][row][column] for k in range(5 + num_classes)]
                emphasis = (2 - box[2] * box[3]) * weight
                wanted = (box[0] * columns - column, box[1] * rows - row)
                totals["loss_xy"] += emphasis * sum(map(cross_entropy, cell[:2], wanted))
                for axis in (0, 1):
                    size = math.log(box[2 + axis] / anchors[best][axis])
                    totals["loss_wh"] += emphasis * abs(cell[2 + axis] - size)
                held[anchor, row, column] = weight
                for index in range(num_classes):
                    aim = 1 - low if index == label else low
                    totals["loss_cls"] += weight * cross_entropy(cell[5 + index], aim)
            boxes = [box for box, *_ in objects]
            totals["loss_obj"] += loop_objectness(
                parts[image], held, boxes, [anchors[i] for i in geometry.masks[scale]], threshold
            )
    return {name: value / len(targets) for name, value in totals.items()}


def random_maps(count, num_classes, width, height, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3 * (5 + num_classes))
    return [
        torch.randn(*shape, height // stride, width // stride, generator=generator) * scale
        for stride in (32, 16, 8)
    ]


def check(maps, targets, num_classes, **chosen):
    found = yolo_loss(maps, targets, COCO_GEOMETRY, num_classes, YoloLossSettings(**chosen))
    low = min(1 / num_classes, 1 / 40) if chosen.get("label_smoothing") else 0.0
    expected = loop_loss(maps, targets, num_classes, chosen.get("ignore_threshold", 0.7), low)
    for name in TERMS:
        assert found[name].item() == pytest.approx(expected[name], rel=2e-4, abs=1e-3), name
    assert found["loss"].item() == pytest.approx(sum(expected.values()), rel=2e-4)
    return found


coordinate = st.floats(0, 128, width=32)
drawn_objects = st.lists(
    st.tuples(
        *[coordinate] * 4, st.integers(0, 3), st.sampled_from([1.0, 0.37, 0.0]), st.booleans()
    ),
    max_size=6,
)


def from_drawn(make_target, drawn):
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, *_ in drawn]
    return make_target(
        boxes,
        [row[4] for row in drawn],
        weights=[row[5] for row in drawn],
        crowd=[index for index, row in enumerate(drawn) if row[6]],
    )


@pytest.mark.slow
def test_it_is_the_originals_on_random_boxes(make_target):
    @settings(max_examples=25, deadline=None)
    @given(st.lists(drawn_objects, min_size=1, max_size=2), st.integers(0, 99), st.booleans())
    def compare(images, seed, smoothing):
        targets = [from_drawn(make_target, drawn) for drawn in images]
        maps = random_maps(len(targets), 4, 128, 96, seed)
        check(maps, targets, 4, label_smoothing=smoothing)

    compare()


def test_two_objects_in_one_cell_both_teach_but_the_last_gives_the_weight(make_target):
    boxes = [(30, 30, 70, 70), (30.5, 30.5, 69.5, 69.5)]
    maps = random_maps(1, 2, 128, 128)
    last = check(maps, [make_target(boxes, (0, 1), weights=(0.2, 0.8))], 2)
    first = check(maps, [make_target(boxes[::-1], (1, 0), weights=(0.8, 0.2))], 2)
    assert last["loss_cls"].item() == pytest.approx(first["loss_cls"].item(), rel=1e-6)
    assert abs(last["loss_obj"].item() - first["loss_obj"].item()) > 1e-3


def test_an_anchor_that_fits_an_object_need_not_say_nothing(make_target):
    maps = [torch.zeros(1, 18, 128 // stride, 128 // stride) for stride in (32, 16, 8)]
    # The first anchor's shape, 14 pixels right of the middle of cell (1, 1), which learns it; the
    # box of the cell to the right is 18 pixels off, an IoU of 98 / 134 = .73.
    target = make_target([(62 - 58, 48 - 45, 62 + 58, 48 + 45)], [0])
    ignored = check(maps, [target], 1)["loss_obj"]
    counted = check(maps, [target], 1, ignore_threshold=0.95)["loss_obj"]
    assert (counted - ignored).item() / math.log(2) == pytest.approx(1, abs=1e-3)


def test_a_crowd_is_not_learnt_but_spares_anchors_on_it(make_target):
    maps = random_maps(1, 2, 128, 128, scale=0.1)
    boxes = [(0, 0, 110, 100)]
    crowd = check(maps, [make_target(boxes, [0], crowd=[0])], 2)
    nothing = check(maps, [make_target()], 2)
    assert crowd["loss_xy"] == crowd["loss_wh"] == crowd["loss_cls"] == 0
    assert crowd["loss_obj"] < nothing["loss_obj"]


def test_no_boxes_anywhere(make_target):
    maps = [level.requires_grad_() for level in random_maps(2, 3, 64, 96)]
    found = check([level.detach() for level in maps], [make_target(), make_target()], 3)
    assert found["loss_cls"] == 0
    found = yolo_loss(maps, [make_target()] * 2, COCO_GEOMETRY, 3, YoloLossSettings())
    found["loss"].backward()
    assert all(level.grad.isfinite().all() for level in maps)


def test_boxes_without_area_and_on_the_far_edge(make_target):
    boxes = [(10, 10, 10, 40), (20, 30, 60, 30), (100, 100, 156, 156)]
    check(random_maps(1, 2, 128, 128), [make_target(boxes, (0, 1, 1))], 2)


def test_smoothing_is_bounded_for_few_classes(make_target):
    target = make_target([(20, 20, 80, 90)], [0])
    check(random_maps(1, 1, 96, 96), [target], 1, label_smoothing=True)
    check(random_maps(1, 60, 96, 96), [target], 60, label_smoothing=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_computed_in_full(make_target, dtype):
    maps = [level.to(dtype) for level in random_maps(1, 3, 96, 96)]
    target = make_target([(20, 20, 80, 90), (5, 5, 20, 20)], (0, 2))
    full = yolo_loss(
        [level.float() for level in maps], [target], COCO_GEOMETRY, 3, YoloLossSettings()
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = yolo_loss(maps, [target], COCO_GEOMETRY, 3, YoloLossSettings())
    for name, value in half.items():
        assert value.dtype == torch.float32
        assert value == full[name], name


def test_gradients_match_finite_differences(make_target):
    # A seed without a kink of |x| nearby; the ignore rule is constant within the step.
    maps = random_maps(1, 2, 64, 64, seed=3)
    target = make_target([(8, 8, 50, 44), (30, 30, 42, 56)], (0, 1), weights=(1.0, 0.6))

    def loss_at(levels):
        return yolo_loss(levels, [target], COCO_GEOMETRY, 2, YoloLossSettings())["loss"]

    leaves = [level.clone().requires_grad_() for level in maps]
    loss_at(leaves).backward()
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(level.shape, generator=generator) for level in maps]
    step = 1e-2
    ahead, behind = (
        loss_at([level + sign * step * way for level, way in zip(maps, directions, strict=True)])
        for sign in (1, -1)
    )
    slope = sum((leaf.grad * way).sum() for leaf, way in zip(leaves, directions, strict=True))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx(slope.item(), rel=2e-2)


def test_another_number_of_classes_is_one_letter(make_target):
    with pytest.raises(ConfigError, match=r"4 classes must have 27 channels.*Received: 24"):
        yolo_loss(random_maps(1, 3, 64, 64), [make_target()], COCO_GEOMETRY, 4, YoloLossSettings())


def test_it_is_fast(make_target):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(8, 20, 2, generator=generator) * 200
    boxes = torch.cat((low, low + 10 + torch.rand(8, 20, 2, generator=generator) * 100), dim=2)
    targets = [make_target(image, [1] * 20) for image in boxes]
    maps = random_maps(8, 20, 320, 320)
    threads, times_ms = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(7):
        start = time.process_time()
        yolo_loss(maps, targets, COCO_GEOMETRY, 20, YoloLossSettings())
        times_ms.append((time.process_time() - start) * 1e3)
    torch.set_num_threads(threads)
    # 15 to 30 ms of one core; the rest is room for a busy machine.
    assert min(times_ms) < 100
