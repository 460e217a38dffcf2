import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyweight.errors import ConfigError
from flyweight.tasks.decoding.yolo import YoloDecoder, decode_maps, decode_offsets
from flyweight.zoo.detectors.yolo import COCO_GEOMETRY

CLASSES = 4


def random_maps(seed=0, count=1, width=96, height=64, objectness=-1.0):
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for stride in (32, 16, 8):
        shape = (count, 3, 5 + CLASSES, height // stride, width // stride)
        level = torch.randn(*shape, generator=generator)
        level[:, :, 4] += objectness
        maps.append(level.flatten(1, 2))
    return maps


def loop_decode(maps):
    """Section 2.1 of the paper, one anchor at a time, for the first image."""

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    boxes, scores = [], []
    for scale, (raw, stride) in enumerate(zip(maps, (32, 16, 8), strict=True)):
        height, width = raw.shape[2] * stride, raw.shape[3] * stride
        values = raw[0].tolist()
        for index, anchor in enumerate(COCO_GEOMETRY.masks[scale]):
            for row in range(raw.shape[2]):
                for column in range(raw.shape[3]):
                    first = index * (5 + CLASSES)
                    cell = [values[first + k][row][column] for k in range(5 + CLASSES)]
                    x, y = (sigmoid(cell[0]) + column) * stride, (sigmoid(cell[1]) + row) * stride
                    w = math.exp(cell[2]) * COCO_GEOMETRY.anchors[anchor][0]
                    h = math.exp(cell[3]) * COCO_GEOMETRY.anchors[anchor][1]
                    xs = [min(max(end, 0), width) for end in (x - w / 2, x + w / 2)]
                    ys = [min(max(end, 0), height) for end in (y - h / 2, y + h / 2)]
                    boxes.append((xs[0], ys[0], xs[1], ys[1]))
                    scores.append([sigmoid(cell[4]) * sigmoid(logit) for logit in cell[5:]])
    return np.array(boxes), np.array(scores)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_decoding_is_the_papers(seed):
    maps = random_maps(seed)
    boxes, scores = decode_maps(maps, COCO_GEOMETRY, CLASSES)
    expected_boxes, expected_scores = loop_decode(maps)
    assert boxes.shape == (1, 3 * (6 + 24 + 96), 4)
    np.testing.assert_allclose(boxes[0], expected_boxes, atol=1e-3)
    np.testing.assert_allclose(scores[0], expected_scores, atol=1e-6)


def test_zero_offsets_are_the_anchor_in_the_middle_of_its_cell():
    boxes = decode_offsets(torch.zeros(1, 2, 4, 3, 5), [(10, 20), (4, 6)], 8)
    assert boxes[0, 0, 2, 4].tolist() == [36 - 5, 20 - 10, 36 + 5, 20 + 10]
    assert boxes[0, 1, 0, 1].tolist() == [12 - 2, 4 - 3, 12 + 2, 4 + 3]


def test_pictures_of_a_batch_are_independent():
    maps = random_maps(3, count=2)
    both = decode_maps(maps, COCO_GEOMETRY, CLASSES)
    second = decode_maps([level[1:] for level in maps], COCO_GEOMETRY, CLASSES)
    for whole, part in zip(both, second, strict=True):
        assert torch.equal(whole[1:], part)


def test_huge_offsets_stay_inside_the_input():
    maps = [torch.full_like(level, 200.0) for level in random_maps()]
    boxes, scores = decode_maps(maps, COCO_GEOMETRY, CLASSES)
    assert boxes.isfinite().all()
    assert (boxes[0, 0] == torch.tensor([0.0, 0, 96, 64])).all()
    assert (scores == 1).all()


def test_half_precision_maps_give_full_precision_boxes():
    boxes, scores = decode_maps([level.half() for level in random_maps()], COCO_GEOMETRY, CLASSES)
    assert boxes.dtype == scores.dtype == torch.float32


def test_another_number_of_classes_is_one_letter():
    with pytest.raises(ConfigError, match=r"3 classes must have 24 channels.*Received: 27"):
        decode_maps(random_maps(), COCO_GEOMETRY, 3)


def test_decoder_module_normalises():
    maps = random_maps()
    pixels, scores = YoloDecoder(COCO_GEOMETRY, CLASSES)(maps)
    fractions, same = YoloDecoder(COCO_GEOMETRY, CLASSES, normalised=True)(maps)
    assert torch.equal(scores, same)
    torch.testing.assert_close(fractions * torch.tensor([96.0, 64, 96, 64]), pixels)


class OnMaps(nn.Module):
    """Takes the maps one by one, as an exported graph must."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, coarse, middle, fine):
        return self.layer((coarse, middle, fine))


@pytest.mark.slow
def test_onnx_runtime_agrees(tmp_path):
    import onnxruntime

    layer = YoloDecoder(COCO_GEOMETRY, CLASSES)

    path = tmp_path / "decode.onnx"
    torch.onnx.export(OnMaps(layer).eval(), tuple(random_maps()), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    for seed, objectness in ((0, -1.0), (1, -4.0), (2, -20.0), (3, 2.0)):
        maps = random_maps(seed, objectness=objectness)
        found = session.run(None, dict(zip(names, (level.numpy() for level in maps), strict=True)))
        for theirs, mine in zip(found, layer(maps), strict=True):
            np.testing.assert_allclose(theirs, mine.numpy(), atol=1e-4)
