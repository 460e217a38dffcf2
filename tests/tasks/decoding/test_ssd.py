import math

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from flyweight import zoo
from flyweight.errors import ConfigError
from flyweight.tasks.decoding.ssd import (
    SsdDecoder,
    decode_boxes,
    encode_boxes,
    input_size,
    join_maps,
    make_priors,
)
from flyweight.zoo.detectors.blazeface import FACE_GEOMETRY
from flyweight.zoo.detectors.ssd import SSDLITE_GEOMETRY, SsdGeometry, SsdLevel

SIDES = (20, 10, 5, 3, 2, 1)
VARIANCES = (0.1, 0.2)
TINY = SsdGeometry(
    (SsdLevel(((8.0, 8.0), (12.0, 6.0)), 8), SsdLevel(((20.0, 20.0),), 16)), base_size=16
)


def paddles_priors(rows, columns, image, step, sizes, ratios, *, clip, largest=None):
    """The loop of PaddlePaddle's prior_box operator, boxes as fractions of the image."""
    expanded = [1.0]
    for ratio in ratios:
        if all(abs(ratio - other) > 1e-6 for other in expanded):
            expanded += [ratio, 1 / ratio]
    boxes = []
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * step, (row + 0.5) * step
            halves = []
            for size in sizes:
                for ratio in expanded:
                    halves.append((size * math.sqrt(ratio) / 2, size / math.sqrt(ratio) / 2))
                if largest is not None:
                    halves.append((math.sqrt(size * largest) / 2,) * 2)
            for wide, high in halves:
                box = [x - wide, y - high, x + wide, y + high]
                box = [value / image for value in box]
                boxes.append([min(max(value, 0), 1) for value in box] if clip else box)
    return np.array(boxes)


def test_ssdlites_priors_are_paddles():
    found = make_priors([(side, side) for side in SIDES], SSDLITE_GEOMETRY)
    smallest = [32, 64, 121.6, 179.2, 236.8, 294.4]
    largest = [64, 121.6, 179.2, 236.8, 294.4, 352]
    steps = [16, 32, 64, 107, 160, 320]
    wanted = [
        paddles_priors(
            side, side, 320, steps[i], [smallest[i]], [2.0, 3.0][: 1 if i == 0 else 2],
            clip=True, largest=largest[i],
        )
        for i, side in enumerate(SIDES)
    ]  # fmt: skip
    assert found.shape == (2434, 4)
    np.testing.assert_allclose(found.numpy() / 320, np.concatenate(wanted), atol=1e-6)


def test_blazefaces_priors_are_paddles():
    found = make_priors([(80, 80), (40, 40)], FACE_GEOMETRY)
    fine = paddles_priors(80, 80, 640, 8, [16, 24], [1.0], clip=False)
    coarse = paddles_priors(40, 40, 640, 16, [32, 48, 64, 80, 96, 128], [1.0], clip=False)
    assert found.shape == (22400, 4)
    np.testing.assert_allclose(found.numpy() / 640, np.concatenate((fine, coarse)), atol=1e-6)
    assert found.min() < 0


def test_at_another_size_priors_grow_and_cells_divide_the_picture():
    found = make_priors([(4, 8), (2, 3)], TINY)
    # The input is 64 wide and 32 high, where the shapes are meant for 16 x 16.
    assert found[0].tolist() == [4 - 16, 4 - 8, 4 + 16, 4 + 8]
    assert found[1].tolist() == [4 - 24, 4 - 6, 4 + 24, 4 + 6]
    last = 64 * 5 / 6
    assert found[-1].tolist() == pytest.approx([last - 40, 24 - 20, last + 40, 24 + 20], abs=1e-4)


def test_boxes_of_faces_do_not_grow_with_the_picture():
    small, large = (make_priors([(n, n), (n // 2, n // 2)], FACE_GEOMETRY) for n in (4, 8))
    assert torch.equal(small[:2], large[:2])


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 50
    return torch.cat((corners, corners + 1 + 40 * torch.rand(count, 2, generator=generator)), 1)


def test_offsets_are_torchvisions():
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    boxes, priors = random_boxes(50, 0), random_boxes(50, 1)
    offsets = encode_boxes(boxes, priors, VARIANCES)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, priors), rtol=1e-4, atol=1e-4)
    found = decode_boxes(offsets, priors, VARIANCES)
    torch.testing.assert_close(found, coder.decode_single(offsets, priors), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found, boxes, rtol=1e-4, atol=1e-3)


def raw_maps(num_classes=3, seed=0):
    torch.manual_seed(seed)
    shapes = ((2, 2, 2), (1, 1, 1))  # priors, rows, columns
    maps = []
    for priors, rows, columns in shapes:
        for each in (4, 1 + num_classes):
            maps.append(torch.randn(2, priors * each, rows, columns))
    return maps


def test_rows_are_in_the_order_of_the_priors():
    maps = raw_maps()
    offsets, logits = join_maps(maps, TINY, 3)
    assert (offsets.shape, logits.shape) == ((2, 9, 4), (2, 9, 4))
    place = 0
    for level, (priors, side) in enumerate(((2, 2), (1, 1))):
        for row in range(side):
            for column in range(side):
                for prior in range(priors):
                    for found, raw in ((offsets, maps[2 * level]), (logits, maps[2 * level + 1])):
                        wanted = raw[:, 4 * prior : 4 * prior + 4, row, column]
                        assert torch.equal(found[:, place], wanted)
                    place += 1


def test_decoding_by_hand():
    maps = raw_maps()
    boxes, scores = SsdDecoder(TINY, 3)(maps)
    assert (boxes.shape, scores.shape) == ((2, 9, 4), (2, 9, 3))
    # The second cell of the first row, second shape: 12 x 6 around (12, 4).
    dx, dy, dw, dh = maps[0][1, 4:8, 0, 1].tolist()
    x, y = 12 + 0.1 * dx * 12, 4 + 0.1 * dy * 6
    wide, high = 6 * math.exp(0.2 * dw), 3 * math.exp(0.2 * dh)
    wanted = [max(x - wide, 0), max(y - high, 0), min(x + wide, 16), min(y + high, 16)]
    assert boxes[1, 3].tolist() == pytest.approx(wanted, abs=1e-4)
    shares = np.exp(maps[1][1, 4:8, 0, 1].numpy())
    assert scores[1, 3].tolist() == pytest.approx(list(shares[1:] / shares.sum()), abs=1e-5)


def test_the_size_of_the_input_follows_from_the_first_map():
    assert input_size(raw_maps(), TINY) == (16, 16)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"2 classes and the background must have 6 .*: 8"):
        SsdDecoder(TINY, 2)(raw_maps())


@pytest.mark.parametrize(
    ("name", "side"), [("ssdlite_mobilenet_v3_small", 96), ("blazeface_nas", 40)]
)
def test_a_networks_maps_fit(name, side):
    with torch.device("meta"):
        model = zoo.create(name, num_classes=2).eval()
        maps = model(torch.empty(1, 3, side, side))
    boxes, scores = SsdDecoder(zoo.spec_of(name).geometry, 2)([torch.zeros(m.shape) for m in maps])
    assert boxes.shape[:2] == scores.shape[:2]
    assert scores.shape[2] == 2
    assert scores.unique().tolist() == [pytest.approx(1 / 3)]
