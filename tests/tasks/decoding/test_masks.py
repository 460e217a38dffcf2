import pytest
import torch

from flyweight.tasks.decoding.masks import paste_masks


def test_a_full_mask_fills_its_box():
    masks = torch.ones(2, 14, 14)
    boxes = torch.tensor([[10.0, 20, 30, 50], [-5, -5, 8, 8]])
    pasted = paste_masks(masks, boxes, (60, 40))
    assert (pasted.dtype, tuple(pasted.shape)) == (torch.bool, (2, 60, 40))
    wanted = torch.zeros(60, 40, dtype=torch.bool)
    wanted[20:50, 10:30] = True
    assert torch.equal(pasted[0], wanted)
    assert torch.equal(pasted[1].nonzero().amax(0), torch.tensor([7, 7]))


@pytest.mark.parametrize("seed", range(3))
def test_masks_lie_where_torchvision_puts_them(seed):
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(4, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 30 + 40 * torch.rand(4, 2, generator=generator)], dim=1)
    noise = torch.rand(4, 1, 5, 5, generator=generator)
    masks = torch.nn.functional.interpolate(noise, 14, mode="bilinear")
    found = paste_masks(masks[:, 0], boxes, (120, 110))
    theirs = paste_masks_in_image(masks, boxes, (120, 110))[:, 0] >= 0.5
    for mine, other in zip(found, theirs, strict=True):
        assert (mine & other).sum() / (mine | other).sum() > 0.85
    assert found.any()


def test_boxes_beside_the_picture_have_no_pixels():
    boxes = torch.tensor([[50.0, 5, 60, 9], [3, 3, 3, 3]])
    assert not paste_masks(torch.ones(2, 14, 14), boxes, (20, 40)).any()


def test_half_a_mask_fills_half_the_box():
    mask = torch.zeros(1, 14, 14)
    mask[:, :, 7:] = 1
    pasted = paste_masks(mask, torch.tensor([[0.0, 0, 28, 28]]), (28, 28))
    assert not pasted[0, :, :14].any()
    assert pasted[0, :, 14:].all()


def test_nothing_is_nothing():
    assert paste_masks(torch.zeros(0, 14, 14), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
