"""Loss of SSD (arXiv 1512.02325, section 2.2) as PaddlePaddle's `ssd_loss` computes it.

Every object is matched with the prior that overlaps it most, the best pair of all first; then each
remaining prior is matched with the object that it overlaps most, if the overlap is large enough.
Matched priors learn the class and the offsets of their object; of the others only the hardest learn
the background.

The original also has `neg_overlap`, the overlap from which a prior without an object does not count
as background. It has no effect: the overlap of such a prior is recorded as zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.data.batch import BoxTarget
from flyweight.tasks.decoding.ssd import encode_boxes, join_maps, priors_of
from flyweight.zoo import library_parts
from flyweight.zoo.detectors.ssd import SsdGeometry

_LEAST_OVERLAP = 1e-6
"""A smaller overlap counts as none, as in the original."""


@dataclass(frozen=True)
class SsdLossSettings:
    """Settings of the loss.

    Attributes:
        match_threshold: Least IoU of a prior and an object that are matched.
        negatives: Priors that learn the background, for each one that learns an object.
    """

    match_threshold: float = 0.5
    negatives: float = 3.0


@dataclass(frozen=True)
class _Matches:
    """The targets of every prior of a batch.

    Attributes:
        offsets: `(n, priors, 4)`; zero where there is no object.
        labels: `(n, priors)` int64, 0 for the background.
        weights: `(n, priors)`, weight of the object; zero where there is none.
        spare: `(n, priors)` bool, priors that must not learn the background.
    """

    offsets: Tensor
    labels: Tensor
    weights: Tensor
    spare: Tensor


def ssd_loss(
    maps: Sequence[Tensor],
    targets: Sequence[BoxTarget],
    geometry: SsdGeometry,
    num_classes: int,
    settings: SsdLossSettings,
) -> dict[str, Tensor]:
    """Return the loss and its two terms, computed in float32.

    Terms are summed over priors and images and divided by the number of priors with an object.
    Objects of a crowd are not learned, and priors on them do not learn the background either.

    Args:
        maps: Raw maps as `zoo.detectors.ssd.SSD` returns them.
        targets: One per image, boxes in input pixels.
        geometry: Priors of the maps.
        num_classes: Classes without background.
        settings: Thresholds and ratios.

    Returns:
        Scalars `loss_loc` (smooth L1), `loss_cls` (cross-entropy), and their sum `loss`.

    Raises:
        ConfigError: The maps' channels do not fit the number of classes.
    """
    with torch.autocast(maps[0].device.type, enabled=False):
        offsets, logits = join_maps(maps, geometry, num_classes)
        with torch.no_grad():
            priors = priors_of(maps, geometry)
            matches = _match(targets, priors, geometry.variances, settings.match_threshold)
        entropy = functional.cross_entropy(logits.transpose(1, 2), matches.labels, reduction="none")
        positive = matches.labels > 0
        negative = hard_negatives(entropy.detach(), positive, matches.spare, settings.negatives)
        weights = torch.where(positive, matches.weights, negative.float())
        distance = functional.smooth_l1_loss(offsets, matches.offsets, reduction="none").sum(-1)
        count = positive.sum().clamp(min=1)
        location = (distance * matches.weights).sum() / count
        classes = (entropy * weights).sum() / count
    return {"loss": location + classes, "loss_loc": location, "loss_cls": classes}


def hard_negatives(losses: Tensor, positive: Tensor, spare: Tensor, ratio: float) -> Tensor:
    """Return the priors that must learn the background: those with the largest loss.

    Args:
        losses: Cross entropy of every prior and its label, `(n, priors)`.
        positive: Priors with an object, `(n, priors)` bool.
        spare: Priors that must not be chosen, `(n, priors)` bool.
        ratio: Number of chosen priors for each positive of the same image.

    Returns:
        `(n, priors)` bool.
    """
    candidates = losses.masked_fill(positive | spare, -torch.inf)
    ranks = candidates.argsort(dim=1, descending=True).argsort(dim=1)
    wanted = (positive.sum(dim=1, keepdim=True) * ratio).long()
    return (ranks < wanted) & candidates.isfinite()


def match_priors(overlaps: Tensor, threshold: float) -> Tensor:
    """Return the object of every prior.

    Args:
        overlaps: IoU of objects and priors, `(objects, priors)`.
        threshold: Least IoU of a prior and an object that has another prior already.

    Returns:
        `(priors,)` int64, -1 where there is none.
    """
    objects, priors = overlaps.shape
    found = torch.full((priors,), -1, dtype=torch.int64, device=overlaps.device)
    if not objects:
        return found
    best, closest = overlaps.max(dim=0)
    found = torch.where(best >= threshold, closest, found)
    rows, columns = _best_pairs(overlaps)
    found[columns] = rows
    return found


def _best_pairs(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return one prior for each object: repeatedly the remaining pair with the largest overlap.

    Pairs that are each other's best are taken together, which gives the same result.
    """
    left = overlaps.clone()
    everything = torch.arange(len(left), device=left.device)
    rows, columns = [], []
    while True:
        best, prior = left.max(dim=1)
        mutual = (left.argmax(dim=0)[prior] == everything) & (best >= _LEAST_OVERLAP)
        if not mutual.any():
            break
        rows.append(everything[mutual])
        columns.append(prior[mutual])
        left[rows[-1]] = 0
        left[:, columns[-1]] = 0
    empty = everything[:0]
    return torch.cat((empty, *rows)), torch.cat((empty, *columns))


def _match(
    targets: Sequence[BoxTarget],
    priors: Tensor,
    variances: tuple[float, float],
    threshold: float,
) -> _Matches:
    parts = []
    for target in targets:
        overlaps = library_parts.box_iou(target.boxes, priors)
        found = match_priors(overlaps[~target.crowd], threshold)
        held = found >= 0
        chosen = (~target.crowd).nonzero().squeeze(1)[found.clamp(min=0)[held]]
        offsets = torch.zeros_like(priors)
        offsets[held] = encode_boxes(target.boxes[chosen], priors[held], variances)
        labels, weights = torch.zeros_like(found), torch.zeros_like(priors[:, 0])
        labels[held] = target.labels[chosen] + 1
        weights[held] = target.weights[chosen]
        spare = (overlaps[target.crowd] >= threshold).any(dim=0)
        parts.append((offsets, labels, weights, spare))
    return _Matches(*(torch.stack(part) for part in zip(*parts, strict=True)))
