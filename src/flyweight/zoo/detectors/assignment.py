"""Which regions a two-stage detector learns from, and what each is to say.

Matching and drawing are torchvision's; an image without objects is all background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flyweight.zoo.detectors.box_encoding import encode
from flyweight.zoo.detectors.region_proposals import PLAIN, AnchorScores

BACKGROUND, IGNORED = -1, -2
"""What `match` says of a region that is no object."""


class Objects(NamedTuple):
    """The objects of one image, in the pixels of the network's input.

    Attributes:
        boxes: xyxy, `(n, 4)` float32.
        labels: `(n,)` int64, without background.
        masks: `(n, h, w)` bool or bytes; None where they are not known.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """How many regions of an image are learnt from.

    Attributes:
        count: Regions.
        foreground: Largest share of them that are objects.
    """

    count: int
    foreground: float


ANCHOR_DRAW = Draw(256, 0.5)
ROI_DRAW = Draw(512, 0.25)
ANCHOR_OVERLAPS = (0.3, 0.7)
"""Anchors with a larger IoU than the second are objects, below the first background."""


class AnchorSamples(NamedTuple):
    """The drawn anchors of a batch.

    Attributes:
        logits: Of the drawn ones, `(anchors,)`.
        labels: 1 for objects, 0 for background, `(anchors,)` float.
        deltas: Of the objects, `(objects, 4)`.
        wanted: What those should be, `(objects, 4)`.
    """

    logits: Tensor
    labels: Tensor
    deltas: Tensor
    wanted: Tensor


class RoiTargets(NamedTuple):
    """What the regions of one image are to say.

    Attributes:
        boxes: xyxy, `(regions, 4)`.
        labels: 0 for background, else the object's label plus one, `(regions,)` int64.
        places: The object that each stands for, `(regions,)` int64; 0 for background.
        wanted: Where that object is, `(regions, 4)`; of background the region itself.
    """

    boxes: Tensor
    labels: Tensor
    places: Tensor
    wanted: Tensor


def match(regions: Tensor, objects: Tensor, low: float, high: float, *, best: bool) -> Tensor:
    """Return the object that each region stands for, `BACKGROUND` or `IGNORED`.

    Args:
        regions: xyxy, `(regions, 4)`.
        objects: xyxy, `(objects, 4)`.
        low: A region whose best IoU is below is background.
        high: One whose best IoU reaches this is that object.
        best: Whether the best regions of every object are that object, however little they overlap.

    Returns:
        `(regions,)` int64.
    """
    from torchvision.models.detection._utils import Matcher  # takes seconds to import
    from torchvision.ops import box_iou

    if not len(objects) or not len(regions):
        return torch.full((len(regions),), BACKGROUND, device=regions.device)
    matcher: Callable[[Tensor], Tensor] = Matcher(high, low, allow_low_quality_matches=best)
    return matcher(box_iou(objects.to(regions), regions))


def draw(matched: Tensor, how: Draw) -> tuple[Tensor, Tensor]:
    """Return the places of randomly drawn objects and of background.

    Args:
        matched: From `match`.
        how: How many of each.
    """
    from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

    # torchvision's classes: 1 and above to draw as objects, 0 as background, below never.
    classes = torch.where(matched >= 0, 1, torch.where(matched == BACKGROUND, 0, -1))
    positive, negative = BalancedPositiveNegativeSampler(how.count, how.foreground)([classes])
    return torch.where(positive[0])[0], torch.where(negative[0])[0]


def sample_anchors(
    scores: AnchorScores, objects: Sequence[Objects], size: Sequence[int]
) -> AnchorSamples:
    """Return the anchors to learn from; those that reach out of the image are left out.

    Args:
        scores: Of a batch.
        objects: Of every image.
        size: Height and width of the images.
    """
    anchors = scores.anchors
    limits = anchors.new_tensor((size[1], size[0]))
    inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] <= limits).all(dim=1)
    places = torch.where(inside)[0]
    parts: list[AnchorSamples] = []
    for logits, offsets, one in zip(scores.objectness, scores.offsets, objects, strict=True):
        matched = match(anchors[places], one.boxes, *ANCHOR_OVERLAPS, best=True)
        positive, negative = draw(matched, ANCHOR_DRAW)
        chosen = places[positive]
        wanted = encode(one.boxes.to(anchors)[matched[positive]], anchors[chosen], PLAIN)
        labels = torch.cat((torch.ones_like(positive), torch.zeros_like(negative)))
        picked = logits[torch.cat((chosen, places[negative]))]
        parts.append(AnchorSamples(picked, labels.to(picked), offsets[chosen], wanted))
    return AnchorSamples(*(torch.cat(column) for column in zip(*parts, strict=True)))


def sample_rois(proposals: Tensor, objects: Objects, overlap: float, how: Draw) -> RoiTargets:
    """Return the regions of one image to learn from, the objects' own boxes among them.

    Args:
        proposals: xyxy, `(proposals, 4)`.
        objects: Of the image.
        overlap: Smallest IoU at which a region stands for an object.
        how: How many.
    """
    regions = torch.cat((proposals, objects.boxes.to(proposals)))
    matched = match(regions, objects.boxes, overlap, overlap, best=False)
    positive, negative = draw(matched, how)
    chosen = torch.cat((positive, negative))
    return _targets(regions[chosen], matched[chosen], objects)


def label_rois(regions: Tensor, objects: Objects, overlap: float) -> RoiTargets:
    """Return all `regions` with what they are to say, as the later stages of a cascade learn.

    Args:
        regions: xyxy, `(regions, 4)`.
        objects: Of the image.
        overlap: Smallest IoU at which a region stands for an object.
    """
    return _targets(regions, match(regions, objects.boxes, overlap, overlap, best=False), objects)


def _targets(regions: Tensor, matched: Tensor, objects: Objects) -> RoiTargets:
    found = matched >= 0
    places = matched.clamp(min=0)
    if not len(objects.labels):
        return RoiTargets(regions, torch.zeros_like(places), places, regions)
    labels = torch.where(found, objects.labels[places] + 1, torch.zeros_like(places))
    wanted = torch.where(found[:, None], objects.boxes.to(regions)[places], regions)
    return RoiTargets(regions, labels, places, wanted)
