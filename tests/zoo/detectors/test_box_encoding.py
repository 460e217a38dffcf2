import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_area, clip_boxes_to_image

from flyweight.zoo.detectors.box_encoding import areas, clip, decode, encode, precise

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some(seed, count=50):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100 - 10
    return torch.cat([corner, corner + 1 + 60 * torch.rand(count, 2, generator=generator)], dim=1)


def test_encoding_is_torchvisions_and_decoding_undoes_it():
    boxes, references = some(0), some(1)
    deltas = encode(boxes, references, WEIGHTS)
    torch.testing.assert_close(deltas, BoxCoder(WEIGHTS).encode_single(boxes, references))
    torch.testing.assert_close(decode(deltas, references, WEIGHTS), boxes, rtol=1e-4, atol=1e-3)


def test_decoding_of_wild_deltas_is_torchvisions():
    references, deltas = some(2), torch.randn(50, 3, 4) * 30
    wanted = BoxCoder(WEIGHTS).decode_single(deltas.flatten(1), references).reshape(50, 3, 4)
    found = decode(deltas, references[:, None], WEIGHTS)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    assert wanted.isfinite().all()


def test_clipping_and_areas_are_torchvisions():
    boxes = some(3)
    assert torch.equal(clip(boxes, (40, 70)), clip_boxes_to_image(boxes, (40, 70)))
    torch.testing.assert_close(areas(boxes), box_area(boxes))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_precision(given, kept):
    assert precise(torch.zeros(1, dtype=given)).dtype == kept
