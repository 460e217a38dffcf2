"""Losses of a two-stage detector's samples, as in the originals.

Boxes: smooth L1 (Fast R-CNN, arXiv 1504.08083, equation 3), sharper for proposals, or the balanced
L1 loss (Libra R-CNN, arXiv 1904.02701, equations 6 to 8).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.zoo.detectors.assignment import AnchorSamples
from flyweight.zoo.detectors.two_stage_outputs import (
    MaskSamples,
    StageSamples,
    TwoStageGeometry,
    TwoStageSamples,
)

ANCHOR_BETA = 1 / 9
"""Error at which the loss of proposals becomes linear: sigma 3 of the originals."""

ALPHA, GAMMA = 0.5, 1.5
"""Weight of small errors, and largest slope, of the balanced L1 loss."""


def two_stage_loss(samples: TwoStageSamples, geometry: TwoStageGeometry) -> dict[str, Tensor]:
    """Return the terms and their sum, `loss`.

    Args:
        samples: Outputs of the network in training mode.
        geometry: Weights of the heads and the kind of their box loss.

    Returns:
        `objectness` and `proposals` of the anchors; `classes` and `boxes` of the head, or of each
        head of a cascade with its number appended; `masks` if there are masks.
    """
    objectness, proposals = anchor_loss(samples.anchors)
    terms = {"objectness": objectness, "proposals": proposals}
    several = len(samples.stages) > 1
    for number, (drawn, stage) in enumerate(zip(samples.stages, geometry.stages, strict=True), 1):
        classes, boxes = head_loss(drawn, balanced=geometry.balanced)
        ending = f"_{number}" if several else ""
        terms |= {f"classes{ending}": classes * stage.share, f"boxes{ending}": boxes * stage.share}
    if samples.masks is not None:
        terms["masks"] = mask_loss(samples.masks)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def anchor_loss(samples: AnchorSamples) -> tuple[Tensor, Tensor]:
    """Return the cross entropy of objectness and the loss of the deltas.

    Both are means over all drawn anchors; background has no deltas.
    """
    count = max(len(samples.labels), 1)
    entropy = functional.binary_cross_entropy_with_logits(
        samples.logits, samples.labels, reduction="sum"
    )
    deltas = functional.smooth_l1_loss(
        samples.deltas, samples.wanted, beta=ANCHOR_BETA, reduction="sum"
    )
    return entropy / count, deltas / count


def head_loss(samples: StageSamples, *, balanced: bool) -> tuple[Tensor, Tensor]:
    """Return the cross entropy of the classes and the loss of the deltas.

    Both are means over all regions; background has no deltas.
    """
    count = max(len(samples.labels), 1)
    entropy = functional.cross_entropy(samples.logits, samples.labels, reduction="sum")
    if balanced:
        deltas = balanced_l1(samples.deltas - samples.wanted).sum()
    else:
        deltas = functional.smooth_l1_loss(samples.deltas, samples.wanted, reduction="sum")
    return entropy / count, deltas / count


def mask_loss(samples: MaskSamples) -> Tensor:
    """Return the mean cross entropy of the pixels of all masks; zero if there are none."""
    entropy = functional.binary_cross_entropy_with_logits(
        samples.logits, samples.wanted, reduction="sum"
    )
    return entropy / max(samples.wanted.numel(), 1)


def balanced_l1(errors: Tensor) -> Tensor:
    """Return the loss of each error (arXiv 1904.02701, equation 8, with its border at 1).

    Example:
        >>> balanced_l1(torch.tensor([0.0, 1.0, 2.0])).round(decimals=3)
        tensor([0.0000, 1.0790, 2.5790])
    """
    bend = math.exp(GAMMA / ALPHA) - 1  # so that both parts meet with one slope
    size = errors.abs()
    near = size.clamp(max=1)
    curve = ALPHA / bend * (bend * near + 1) * torch.log(bend * near + 1) - ALPHA * near
    line = GAMMA * size + GAMMA / bend - ALPHA
    return torch.where(size < 1, curve, line)
