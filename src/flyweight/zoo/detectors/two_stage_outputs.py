"""Geometry and outputs of a two-stage detector, as plain values."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flyweight.zoo.detectors.assignment import ROI_SAMPLES, AnchorSamples, SampleLimits
from flyweight.zoo.detectors.region_proposals import AnchorLevel, ProposalLimits
from flyweight.zoo.detectors.suppression import best_of_each_class, keep_best, survivors


@dataclass(frozen=True)
class HeadStage:
    """One head of a detector.

    Attributes:
        overlap: Smallest IoU at which a region gets an object.
        weights: Weights of its deltas, see `box_encoding.encode`.
        share: Factor of its loss in the sum.
    """

    overlap: float
    weights: tuple[float, float, float, float]
    share: float = 1.0


@dataclass(frozen=True)
class MaskLimits:
    """Limits of the detections that get a mask.

    The score threshold is low, so that a task can select fewer of them.

    Attributes:
        score_threshold: Score that a detection must exceed.
        iou_threshold: A box with a larger IoU with a better one of its class is suppressed.
        keep: Largest number of detections per image.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    keep: int = 100


@dataclass(frozen=True)
class TwoStageGeometry:
    """Anchors, stages and limits of a two-stage detector.

    Attributes:
        levels: Anchors of every map, finest first.
        stages: Heads in order.
        training: Numbers of proposals in training.
        testing: Numbers of proposals in evaluation.
        sampled: Number of proposals that enter the loss of the first head.
        class_specific: Whether every class has its own box.
        balanced: Whether the loss of boxes is balanced L1 (arXiv 1904.02701) instead of smooth L1.
        masks: Limits of the detections with masks; None for a detector without masks.
    """

    levels: tuple[AnchorLevel, ...]
    stages: tuple[HeadStage, ...]
    training: ProposalLimits
    testing: ProposalLimits
    sampled: SampleLimits = ROI_SAMPLES
    class_specific: bool = False
    balanced: bool = False
    masks: MaskLimits | None = None


class TwoStageOutputs(NamedTuple):
    """Outputs of a detector in evaluation mode, with `p` proposals per image.

    Attributes:
        objectness: Logits of all anchors, `(n, anchors)`.
        offsets: Deltas of all anchors, `(n, anchors, 4)`.
        proposals: xyxy in input pixels, `(n, p, 4)`; rows from `counts` on are zeros.
        counts: Proposals of every image, `(n,)` int64.
        logits: Logits of every head for the regions of the last head, `(n, p, heads, 1 + classes)`;
            the first class is background.
        deltas: Deltas of the last head, `(n, p, boxes, 4)`; one box for all classes or one per
            class.
        boxes: Decoded deltas, xyxy in input pixels, clipped, of the same shape.
    """

    objectness: Tensor
    offsets: Tensor
    proposals: Tensor
    counts: Tensor
    logits: Tensor
    deltas: Tensor
    boxes: Tensor


class MaskOutputs(NamedTuple):
    """Outputs of a detector with masks in evaluation mode, with `k` detections per image.

    Attributes:
        regions: Outputs as of a detector without masks.
        boxes: Boxes after suppression, xyxy in input pixels, `(n, k, 4)`.
        scores: `(n, k)`, descending.
        labels: `(n, k)` int64; -1 is padding.
        counts: Detections of every image, `(n,)` int64.
        masks: Logits within each box, `(n, k, side, side)`.
    """

    regions: TwoStageOutputs
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    masks: Tensor


class StageSamples(NamedTuple):
    """Outputs and targets of one head for the sampled regions.

    Attributes:
        logits: `(regions, 1 + classes)`.
        labels: Target classes, `(regions,)` int64; 0 is background.
        deltas: Predicted deltas of the objects, of the class of each, `(objects, 4)`.
        wanted: Target deltas of the objects, `(objects, 4)`.
    """

    logits: Tensor
    labels: Tensor
    deltas: Tensor
    wanted: Tensor


class MaskSamples(NamedTuple):
    """Masks of the objects among the sampled regions.

    Attributes:
        logits: Logits of the class of each object, `(objects, side, side)`.
        wanted: Target masks of 0 and 1, `(objects, side, side)`.
    """

    logits: Tensor
    wanted: Tensor


class TwoStageSamples(NamedTuple):
    """Outputs of a detector in training mode.

    Attributes:
        anchors: Sampled anchors.
        stages: Samples of every head.
        masks: Samples of masks; None for a detector without masks.
    """

    anchors: AnchorSamples
    stages: tuple[StageSamples, ...]
    masks: MaskSamples | None


def probabilities(found: TwoStageOutputs) -> Tensor:
    """Return scores `(n, p, classes)`: the mean of the heads, without background, padding zero."""
    scores = found.logits.softmax(dim=-1).mean(dim=2)[..., 1:]
    places = torch.arange(scores.shape[1], device=scores.device)
    return scores * (places < found.counts[:, None]).unsqueeze(-1)


def boxes_of(found: TwoStageOutputs) -> Tensor:
    """Return boxes `(n, p, 4)`, or `(n, p, classes, 4)` if every class has its own box."""
    return found.boxes.squeeze(2) if found.boxes.shape[2] == 1 else found.boxes


def select(found: TwoStageOutputs, final: MaskLimits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
