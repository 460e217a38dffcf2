"""Losses on outputs of networks: scores of classes, and raw maps of YOLO heads.

The teacher's tensors never receive a gradient. Everything is computed in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.distillation.loss_inputs import (
    counted_positions,
    in_float32,
    mean_over,
    require_equal_counts,
    require_equal_shapes,
)
from flyweight.errors import ConfigError

_NEVER = -1000.0
"""A score so low that the softmax gives the class a probability of 0."""


def kl(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Return the divergence of the student's class probabilities from the teacher's.

    `T^2 mean_n sum_c p_t (log p_t - log p_s)` with `p = softmax(scores / T)` (arXiv 1503.02531,
    section 2). For maps of scores the mean is over images and positions.

    Args:
        student: Scores before softmax, `(n, classes)` or `(n, classes, h, w)`.
        teacher: Likewise.
        temperature: T.
        mask: For maps: `(n, H, W)`, True where a pixel counts; None where all do.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ.
    """
    require_equal_shapes(student, teacher, "kl")
    student, teacher = in_float32(student, teacher.detach())
    ours = functional.log_softmax(student / temperature, dim=1)
    theirs = functional.log_softmax(teacher / temperature, dim=1)
    distance = (theirs.exp() * (theirs - ours)).sum(dim=1, keepdim=True)
    counted = None if mask is None else counted_positions(mask, distance)
    return temperature**2 * mean_over(distance, counted)


def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Return decoupled knowledge distillation: of the labelled class, and among the others.

    `T^2 (alpha KL(b_t, b_s) + beta KL(q_t, q_s))`, where b holds the probabilities of the labelled
    class and of all others together, and q those of the others among themselves (arXiv
    2203.08679, section 3.2); the mean is over images.

    Args:
        student: Scores before softmax, `(n, classes)`.
        teacher: Likewise.
        labels: The labelled classes, `(n,)` int64.
        alpha: Weight of the labelled class.
        beta: Weight of the others.
        temperature: T.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ.
    """
    require_equal_shapes(student, teacher, "dkd")
    student, teacher = in_float32(student, teacher.detach())
    ours, theirs = student / temperature, teacher / temperature
    labelled = functional.one_hot(labels, student.shape[1]).to(student.dtype)
    of_label = _divergence(_two_classes(theirs, labelled), _two_classes(ours, labelled))
    others = [functional.log_softmax(one + _NEVER * labelled, dim=1) for one in (theirs, ours)]
    among_others = _divergence(*others)
    return temperature**2 * (alpha * of_label + beta * among_others)


def _two_classes(scores: Tensor, labelled: Tensor) -> Tensor:
    """Return log probabilities `(n, 2)` of the labelled class and of all others."""
    logs = functional.log_softmax(scores, dim=1)
    own = (logs * labelled).sum(dim=1)
    others = logs.masked_fill(labelled.bool(), -torch.inf).logsumexp(dim=1)
    return torch.stack((own, others), dim=1)


def _divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Return KL of log probabilities `(n, classes)`, the mean over images."""
    return functional.kl_div(found, wanted, reduction="batchmean", log_target=True)


def l2_distill(
    student: Sequence[Tensor], teacher: Sequence[Tensor], weight: float = 100.0
) -> Tensor:
    """Return the original tools' `l2_distill`: `weight * sum_scales mean((t - s)^2)`.

    Of PaddleDetection's `slim/distillation/distill.py`, where the weight is 100.

    Args:
        student: Raw head outputs, one map `(n, channels, h, w)` per scale.
        teacher: Likewise.
        weight: Factor of the sum.

    Returns:
        A scalar.

    Raises:
        ConfigError: Numbers or shapes of the maps differ.
    """
    require_equal_counts(student, teacher, "l2_distill")
    total = student[0].new_zeros((), dtype=torch.float32)
    for ours, theirs in zip(student, teacher, strict=True):
        require_equal_shapes(ours, theirs, "l2_distill")
        found, wanted = in_float32(ours, theirs.detach())
        total = total + (found - wanted).square().mean()
    return weight * total


def split_distill(
    student: Sequence[Tensor], teacher: Sequence[Tensor], num_classes: int, weight: float = 1000.0
) -> Tensor:
    """Return the original tools' fine-grained loss of YOLOv3, `weight * sum_scales (reg+cls+obj)`.

    With s for the sigmoid, BCE(logit, target) and means over all elements of a tensor:

    - reg = mean((BCE(x_s, s(x_t)) + BCE(y_s, s(y_t)) + |w_s - w_t| + |h_s - h_t|) s(obj_t))
    - cls = mean(BCE(cls_s, s(cls_t)) s(obj_t))
    - obj = mean(BCE(obj_s, 1 where obj_t > 0 else 0))

    Of PaddleDetection's `slim/distillation/distill.py`, where the weight is 1000; the idea is of
    arXiv 1805.06361.

    Args:
        student: Raw head outputs, one map `(n, anchors * (5 + classes), h, w)` per scale. The
            channels of an anchor are tx, ty, tw, th, objectness, classes.
        teacher: Likewise.
        num_classes: Classes without background.
        weight: Factor of the sum.

    Returns:
        A scalar.

    Raises:
        ConfigError: Numbers or shapes of the maps differ, or do not fit the number of classes.
    """
    return weight * torch.stack(tuple(split_terms(student, teacher, num_classes).values())).sum()


def split_terms(
    student: Sequence[Tensor], teacher: Sequence[Tensor], num_classes: int
) -> dict[str, Tensor]:
    """Return the terms reg, cls and obj of `split_distill`, each summed over scales, unweighted."""
    require_equal_counts(student, teacher, "split_distill")
    totals: dict[str, Tensor] = {}
    for ours, theirs in zip(student, teacher, strict=True):
        require_equal_shapes(ours, theirs, "split_distill")
        found = anchor_parts(ours, num_classes)
        wanted = anchor_parts(theirs.detach(), num_classes)
        for name, value in _split_of_scale(found, wanted).items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def anchor_parts(raw: Tensor, num_classes: int) -> Tensor:
    """Return a raw map of a YOLO head as float32 `(n, anchors, 5 + classes, h, w)`.

    Raises:
        ConfigError: The channels do not divide among anchors of 5 + classes.
    """
    count, channels, height, width = raw.shape
    if channels % (5 + num_classes):
        raise ConfigError(
            f"A raw map for {num_classes} classes must have channels that are a multiple of "
            f"{5 + num_classes}. Received {channels}. Count no background."
        )
    return raw.to(torch.float32).reshape(count, -1, 5 + num_classes, height, width)


def _split_of_scale(found: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    objectness = wanted[:, :, 4].sigmoid()
    places = _cross_entropy(found[:, :, 0:2], wanted[:, :, 0:2].sigmoid()).sum(dim=2)
    sizes = (found[:, :, 2:4] - wanted[:, :, 2:4]).abs().sum(dim=2)
    classes = _cross_entropy(found[:, :, 5:], wanted[:, :, 5:].sigmoid())
    held = (wanted[:, :, 4] > 0).to(found.dtype)
    return {
        "reg": ((places + sizes) * objectness).mean(),
        "cls": (classes * objectness[:, :, None]).mean(),
        "obj": _cross_entropy(found[:, :, 4], held).mean(),
    }


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
