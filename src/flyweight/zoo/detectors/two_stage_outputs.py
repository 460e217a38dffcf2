"""What a two-stage detector is told and what it says: plain values, and how they are read."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flyweight.zoo.detectors.assignment import ROI_DRAW, AnchorSamples, Draw
from flyweight.zoo.detectors.region_proposals import AnchorLevel, ProposalLimits
from flyweight.zoo.detectors.suppression import best_of_each_class, keep_best, survivors


@dataclass(frozen=True)
class Stage:
    """One head of a detector.

    Attributes:
        overlap: Smallest IoU at which a region stands for an object.
        weights: Of its deltas, see `boxes.encode`.
        share: Of its loss in the whole.
    """

    overlap: float
    weights: tuple[float, float, float, float]
    share: float = 1.0


@dataclass(frozen=True)
class Final:
    """Which detections of an image get a mask.

    The threshold is low, so that a task can ask for less than all.

    Attributes:
        score_threshold: Score that they must exceed.
        iou_threshold: A box that overlaps a better one of its class more than this goes.
        keep: How many, at most.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    keep: int = 100


@dataclass(frozen=True)
class TwoStageGeometry:
    """Where a two-stage detector looks and how its boxes are to be read.

    Attributes:
        levels: The anchors of every map, finest first.
        stages: Its heads in order.
        training: Proposals in training.
        testing: Proposals in evaluation.
        learnt: How many of them the first head learns from.
        class_specific: Whether every class has a box of its own.
        balanced: Whether boxes learn with the balanced L1 loss (arXiv 1904.02701), not smooth L1.
        masks: What gets a mask; None where nothing does.
    """

    levels: tuple[AnchorLevel, ...]
    stages: tuple[Stage, ...]
    training: ProposalLimits
    testing: ProposalLimits
    learnt: Draw = ROI_DRAW
    class_specific: bool = False
    balanced: bool = False
    masks: Final | None = None


class TwoStageOutputs(NamedTuple):
    """What a detector says in evaluation mode; `p` proposals per image.

    Attributes:
        objectness: Logits of all anchors, `(n, anchors)`.
        offsets: Their deltas, `(n, anchors, 4)`.
        proposals: xyxy in input pixels, `(n, p, 4)`; rows from `counts` on are zeros.
        counts: Proposals of every image, `(n,)` int64.
        logits: Of every head on the last head's regions, `(n, p, heads, 1 + classes)`; the first
            class is background.
        deltas: Of the last head, `(n, p, boxes, 4)`; one box for all classes or one per class.
        boxes: What they mean, xyxy in input pixels, clipped, of the same shape.
    """

    objectness: Tensor
    offsets: Tensor
    proposals: Tensor
    counts: Tensor
    logits: Tensor
    deltas: Tensor
    boxes: Tensor


class MaskOutputs(NamedTuple):
    """What a detector with masks says in evaluation mode; `k` detections per image.

    Attributes:
        regions: As of a detector without.
        boxes: What is left after suppression, xyxy in input pixels, `(n, k, 4)`.
        scores: `(n, k)`, falling.
        labels: `(n, k)` int64; -1 is padding.
        counts: `(n,)` int64.
        masks: Logits within each box, `(n, k, side, side)`.
    """

    regions: TwoStageOutputs
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    masks: Tensor


class StageSamples(NamedTuple):
    """What one head said of the regions it learns from, and what it should have.

    Attributes:
        logits: `(regions, 1 + classes)`.
        labels: `(regions,)` int64; 0 is background.
        deltas: Of the objects among them, each of its own class, `(objects, 4)`.
        wanted: What those should be, `(objects, 4)`.
    """

    logits: Tensor
    labels: Tensor
    deltas: Tensor
    wanted: Tensor


class MaskSamples(NamedTuple):
    """Masks of the objects among the regions.

    Attributes:
        logits: Each of its own class, `(objects, side, side)`.
        wanted: 0 or 1, `(objects, side, side)`.
    """

    logits: Tensor
    wanted: Tensor


class TwoStageSamples(NamedTuple):
    """What a detector says in training mode.

    Attributes:
        anchors: Drawn anchors.
        stages: Every head's regions.
        masks: None for a detector without masks.
    """

    anchors: AnchorSamples
    stages: tuple[StageSamples, ...]
    masks: MaskSamples | None


def probabilities(found: TwoStageOutputs) -> Tensor:
    """Return the scores `(n, p, classes)`: the heads' mean, background left out, padding zero."""
    scores = found.logits.softmax(dim=-1).mean(dim=2)[..., 1:]
    places = torch.arange(scores.shape[1], device=scores.device)
    return scores * (places < found.counts[:, None]).unsqueeze(-1)


def boxes_of(found: TwoStageOutputs) -> Tensor:
    """Return the boxes `(n, p, 4)`, or `(n, p, classes, 4)` where every class has its own."""
    return found.boxes.squeeze(2) if found.boxes.shape[2] == 1 else found.boxes


def select(found: TwoStageOutputs, final: Final) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return boxes, scores, labels and counts after suppression, see `suppression.keep_best`."""
    scores = probabilities(found)
    boxes, best = best_of_each_class(boxes_of(found), scores, scores.shape[1])
    count = boxes.shape[2]
    survived = survivors(
        boxes.reshape(-1, count, 4),
        best.reshape(-1, count),
        final.iou_threshold,
        final.score_threshold,
    )
    return keep_best(boxes, best, survived.reshape(best.shape), final.keep)
