import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from flyweight.zoo.detectors.roi_pooling import (
    PyramidRoiPool,
    RoiPool,
    with_image_of_rows,
    with_images,
)


def boxes(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 60
    extent = 2 ** (1 + 6 * torch.rand(*shape, 2, generator=generator))
    return torch.cat([corner, corner + extent], -1)


def test_boxes_carry_their_picture():
    rows = boxes(0, 2, 5)
    assert torch.equal(with_image_of_rows(rows), with_images(list(rows)))
    assert with_images(list(rows))[:, 0].tolist() == [0] * 5 + [1] * 5


def test_one_map():
    features, rois = torch.randn(2, 3, 8, 8), with_image_of_rows(boxes(1, 2, 5))
    found = RoiPool(14, 16)((features,), rois)
    assert torch.equal(found, roi_align(features, rois, 14, 1 / 16))


@pytest.mark.parametrize("training", [False, True])
def test_levels_are_torchvisions(training):
    maps = [torch.randn(2, 3, 128 >> level, 128 >> level) for level in (2, 3, 4, 5)]
    rows = boxes(2, 2, 40)
    pool = PyramidRoiPool(7, (2, 3, 4, 5), canonical_level=4, canonical_side=28).train(training)
    theirs = MultiScaleRoIAlign(["2", "3", "4", "5"], 7, 2, canonical_scale=28, canonical_level=4)
    named = {str(level): one for level, one in zip((2, 3, 4, 5), maps, strict=True)}
    wanted = theirs(named, list(rows), [(128, 128)] * 2)
    torch.testing.assert_close(pool(maps, with_image_of_rows(rows)), wanted)
    assert len(pool.level_of(rows.flatten(0, 1)).unique()) == 4


def test_levels_beyond_the_last_are_not_looked_at():
    maps = [torch.randn(1, 3, 16, 16), torch.randn(1, 3, 8, 8)]
    pool = PyramidRoiPool(7, (2, 3), canonical_level=3, canonical_side=32).eval()
    rois = with_image_of_rows(boxes(3, 1, 9))
    assert torch.equal(pool([*maps, torch.full((1, 3, 4, 4), torch.nan)], rois), pool(maps, rois))
