import numpy as np
import pytest
import torch
from torchvision.ops import nms

from flyweight.zoo.detectors.box_encoding import clip, decode
from flyweight.zoo.detectors.region_proposals import (
    PLAIN,
    AnchorLevel,
    AnchorScores,
    ProposalLimits,
    RegionProposalHead,
    propose,
)

LEVEL = AnchorLevel(16, (32.0, 64.0))


def test_anchors_are_the_originals():
    # Paddle's anchor generator, with its inclusive last pixels turned into edges.
    grid = AnchorLevel(16, (32.0, 64.0, 128.0, 256.0, 512.0)).grid(2, 3)
    expected = []
    for row in range(2):
        for column in range(3):
            across, down = column * 16 + 0.5 * 15, row * 16 + 0.5 * 15
            for ratio in (0.5, 1.0, 2.0):
                width = np.floor(np.sqrt(16 * 16 / ratio) + 0.5)
                height = np.floor(width * ratio + 0.5)
                for size in (32, 64, 128, 256, 512):
                    half_w, half_h = (width * size / 16 - 1) / 2, (height * size / 16 - 1) / 2
                    expected.append(
                        [across - half_w, down - half_h, across + half_w + 1, down + half_h + 1]
                    )
    np.testing.assert_allclose(grid.numpy(), expected, atol=1e-4)


def test_the_head_is_shared_and_its_rows_belong_to_its_anchors():
    torch.manual_seed(0)
    levels = (AnchorLevel(8, (16.0,)), AnchorLevel(16, (32.0,)))
    head = RegionProposalHead(4, 6, levels).eval()
    maps = [torch.randn(2, 4, 5, 6), torch.randn(2, 4, 3, 3)]
    scores = head(maps)
    assert scores.counts == (90, 27)
    assert scores.objectness.shape == (2, 117)
    assert scores.offsets.shape == (2, 117, 4)
    hidden = head.conv_rpn(maps[0]).relu()
    logits, offsets = head.rpn_cls_logits(hidden), head.rpn_bbox_pred(hidden)
    row, column, anchor = 3, 4, 2
    place = (row * 6 + column) * 3 + anchor
    assert scores.objectness[1, place] == logits[1, anchor, row, column]
    torch.testing.assert_close(
        scores.offsets[1, place], offsets[1, 4 * anchor : 4 * anchor + 4, row, column]
    )
    centre = (scores.anchors[place, :2] + scores.anchors[place, 2:]) / 2
    assert centre.tolist() == [column * 8 + 4, row * 8 + 4]


def random_scores(seed, sides=((8, 8), (4, 4))):
    generator = torch.Generator().manual_seed(seed)
    levels = (AnchorLevel(8, (16.0,)), AnchorLevel(16, (32.0,)))
    anchors = [level.grid(*side) for level, side in zip(levels, sides, strict=True)]
    count = sum(map(len, anchors))
    return AnchorScores(
        torch.randn(2, count, generator=generator),
        torch.randn(2, count, 4, generator=generator) * 0.5,
        torch.cat(anchors),
        tuple(map(len, anchors)),
    )


@pytest.mark.parametrize(("before", "after"), [(1000, 50), (40, 50), (1000, 1000)])
def test_proposals_are_those_of_a_plain_loop(before, after):
    scores, size = random_scores(1), (64, 64)
    found = propose(scores, size, ProposalLimits(before, after))
    for image in range(2):
        rows = []
        for start, count in ((0, 192), (192, 48)):
            logits = scores.objectness[image, start : start + count]
            order = logits.argsort(descending=True)[:before] + start
            regions = clip(decode(scores.offsets[image, order], scores.anchors[order], PLAIN), size)
            sides = regions[:, 2:] - regions[:, :2]
            keep = (sides >= 1e-3).all(1)
            regions, values = regions[keep], scores.objectness[image, order][keep]
            best = nms(regions, values.sigmoid(), 0.7)
            rows += [(float(values[i]), regions[i]) for i in best]
        rows.sort(key=lambda row: -row[0])
        wanted = torch.stack([box for _, box in rows[:after]])
        count = int(found.counts[image])
        assert count == len(wanted)
        torch.testing.assert_close(found.boxes[image, :count], wanted)
        assert found.boxes[image, count:].abs().sum() == 0
    assert found.boxes.shape[1] == min(after, min(before, 192) + min(before, 48))
