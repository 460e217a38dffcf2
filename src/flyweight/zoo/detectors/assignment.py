"""Assignment of objects to the regions from which a two-stage detector learns.

Matching and sampling are those of torchvision. In an image without objects, every region is
background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flyweight.zoo import library_parts
from flyweight.zoo.detectors.box_encoding import encode
from flyweight.zoo.detectors.region_proposals import PLAIN, AnchorScores

BACKGROUND, IGNORED = -1, -2
"""Results of `match` for regions that are no object."""


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
class SampleLimits:
    """Number of regions per image that enter the loss.

    Attributes:
        count: Regions.
        foreground: Largest share of objects among them.
    """

    count: int
    foreground: float


ANCHOR_SAMPLES = SampleLimits(256, 0.5)
ROI_SAMPLES = SampleLimits(512, 0.25)
ANCHOR_OVERLAPS = (0.3, 0.7)
"""Anchors with an IoU above the second number are objects, below the first background."""


class AnchorSamples(NamedTuple):
    """The sampled anchors of a batch.

    Attributes:
        logits: Logits of the sampled anchors, `(anchors,)`.
        labels: 1 for objects, 0 for background, `(anchors,)` float.
        deltas: Predicted deltas of the objects, `(objects, 4)`.
        wanted: Target deltas of the objects, `(objects, 4)`.
    """

    logits: Tensor
    labels: Tensor
    deltas: Tensor
    wanted: Tensor


class RoiTargets(NamedTuple):
    """Targets of the regions of one image.

    Attributes:
        boxes: Regions, xyxy, `(regions, 4)`.
        labels: 0 for background, else the label of the object plus one, `(regions,)` int64.
        places: Index of the matched object, `(regions,)` int64; 0 for background.
        wanted: Box of the matched object, `(regions, 4)`; the region itself for background.
    """

    boxes: Tensor
    labels: Tensor
    places: Tensor
    wanted: Tensor


def match(regions: Tensor, objects: Tensor, low: float, high: float, *, best: bool) -> Tensor:
    """Return the index of the object of each region, or `BACKGROUND` or `IGNORED`.

    Args:
        regions: xyxy, `(regions, 4)`.
        objects: xyxy, `(objects, 4)`.
        low: A region whose best IoU is below this is background.
        high: A region whose best IoU reaches this gets that object.
        best: Whether the best regions of every object get that object at any overlap.

    Returns:
        `(regions,)` int64.
    """
    if not len(objects) or not len(regions):
        return torch.full((len(regions),), BACKGROUND, device=regions.device)
    matcher: Callable[[Tensor], Tensor] = library_parts.Matcher(
        high, low, allow_low_quality_matches=best
    )
    return matcher(library_parts.box_iou(objects.to(regions), regions))


def sample(matched: Tensor, limits: SampleLimits) -> tuple[Tensor, Tensor]:
    """Return the indices of randomly sampled object regions and background regions.

    Args:
        matched: Result of `match`.
        limits: Number of regions.
    """
    # Classes of torchvision: from 1 on objects, 0 background, negative ones are never sampled.
    classes = torch.where(matched >= 0, 1, torch.where(matched == BACKGROUND, 0, -1))
    sampler = library_parts.BalancedPositiveNegativeSampler(limits.count, limits.foreground)
    positive, negative = sampler([classes])
    return torch.where(positive[0])[0], torch.where(negative[0])[0]


def sample_anchors(
    scores: AnchorScores, objects: Sequence[Objects], size: Sequence[int]
) -> AnchorSamples:
    """Return the sampled anchors of a batch. Anchors that cross the image border are left out.

    Args:
        scores: Scores of a batch.
        objects: Objects of every image.
        size: Height and width of the images.
    """
    anchors = scores.anchors
    limits = anchors.new_tensor((size[1], size[0]))
    inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] <= limits).all(dim=1)
    places = torch.where(inside)[0]
    parts: list[AnchorSamples] = []
    for logits, offsets, one in zip(scores.objectness, scores.offsets, objects, strict=True):
        matched = match(anchors[places], one.boxes, *ANCHOR_OVERLAPS, best=True)
        positive, negative = sample(matched, ANCHOR_SAMPLES)
        chosen = places[positive]
        wanted = encode(one.boxes.to(anchors)[matched[positive]], anchors[chosen], PLAIN)
        labels = torch.cat((torch.ones_like(positive), torch.zeros_like(negative)))
        picked = logits[torch.cat((chosen, places[negative]))]
        parts.append(AnchorSamples(picked, labels.to(picked), offsets[chosen], wanted))
    return AnchorSamples(*(torch.cat(column) for column in zip(*parts, strict=True)))


def sample_rois(
    proposals: Tensor, objects: Objects, overlap: float, limits: SampleLimits
) -> RoiTargets:
    """Return sampled regions of one image with their targets.

    The boxes of the objects themselves are added to the proposals.

    Args:
        proposals: xyxy, `(proposals, 4)`.
        objects: Objects of the image.
        overlap: Smallest IoU at which a region gets an object.
        limits: Number of regions.
    """
    regions = torch.cat((proposals, objects.boxes.to(proposals)))
    matched = match(regions, objects.boxes, overlap, overlap, best=False)
    positive, negative = sample(matched, limits)
    chosen = torch.cat((positive, negative))
    return _targets(regions[chosen], matched[chosen], objects)


def label_rois(regions: Tensor, objects: Objects, overlap: float) -> RoiTargets:
    """Return all `regions` with their targets, for the later stages of a cascade.

    Args:
        regions: xyxy, `(regions, 4)`.
        objects: Objects of the image.
        overlap: Smallest IoU at which a region gets an object.
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
