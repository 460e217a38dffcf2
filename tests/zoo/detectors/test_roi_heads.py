import pytest
import torch
from torch import nn

from flyweight.zoo.detectors.roi_heads import MaskHead, RoiHead, TwoLayerBody


def test_vectors_of_two_layers():
    torch.manual_seed(0)
    head = RoiHead(TwoLayerBody(3 * 4, 8), 8, 5, class_specific=False)
    pooled = torch.randn(6, 3, 2, 2)
    said = head(pooled)
    vectors = head.body.fc7(head.body.fc6(pooled.reshape(6, 12)).relu()).relu()
    torch.testing.assert_close(said.logits, head.cls_score(vectors))
    torch.testing.assert_close(said.deltas[:, 0], head.bbox_pred(vectors))
    assert (said.logits.shape, said.deltas.shape) == ((6, 6), (6, 1, 4))


def test_maps_are_averaged_and_every_class_has_a_box():
    torch.manual_seed(0)
    head = RoiHead(nn.Conv2d(3, 8, 3, stride=2, padding=1), 8, 5, class_specific=True)
    said = head(torch.randn(6, 3, 14, 14))
    assert said.features.shape == (6, 8, 7, 7)
    torch.testing.assert_close(said.logits, head.cls_score(said.features.mean((2, 3))))
    assert said.deltas.shape == (6, 5, 4)


@pytest.mark.parametrize("count", [3, 0])
def test_masks_are_twice_as_large(count):
    assert MaskHead(8, 4, 5)(torch.randn(count, 8, 7, 7)).shape == (count, 5, 14, 14)
