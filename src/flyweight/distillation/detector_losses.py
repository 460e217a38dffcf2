"""Losses for detectors: focal and global features of a pyramid, and cross-head predictions.

The teacher's tensors never receive a gradient. Everything is computed in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.distillation.head_losses import anchor_parts
from flyweight.distillation.loss_inputs import (
    in_float32,
    require_equal_counts,
    require_equal_shapes,
    require_maps,
)
from flyweight.errors import ConfigError

Relation = Callable[[Tensor], Tensor]
"""Adds to features `(n, channels, h, w)` what their global context says; learns."""


@dataclass(frozen=True)
class FgdWeights:
    """Weights of the terms of `fgd`, by default those of the paper for one-stage detectors.

    Attributes:
        foreground: alpha, of features within objects.
        background: beta, of features outside of objects.
        attention: gamma, of the attention maps.
        relation: lambda, of the global relations.
        temperature: Of the attention maps.
    """

    foreground: float = 1e-3
    background: float = 5e-4
    attention: float = 1e-3
    relation: float = 5e-6
    temperature: float = 0.5


def fgd(
    student: Tensor,
    teacher: Tensor,
    boxes: Sequence[Tensor],
    image_size: tuple[int, int],
    *,
    relations: tuple[Relation, Relation] | None = None,
    weights: FgdWeights = FgdWeights(),
) -> Tensor:
    """Return focal and global distillation of one level of a pyramid (arXiv 2111.11837).

    With the teacher's spatial attention A = hw softmax(mean_c |t| / T) and channel attention
    B = c softmax(mean_hw |t| / T), and sums over all elements divided by n:

    - foreground and background: sum(M A B (s - t)^2), where M is 1 / area of the smallest object
      at a position, and 1 / number of background positions elsewhere (equations 3 to 7);
    - attention: sum|A_s - A_t| + sum|B_s - B_t| (equation 8);
    - relation: sum (R_s(s) - R_t(t))^2 with one global context block each (equation 9).

    Args:
        student: `(n, channels, h, w)`.
        teacher: Likewise, of the same shape.
        boxes: Objects of each image, `(objects, 4)` xyxy in pixels of the network's input.
        image_size: Height and width of that input.
        relations: Context blocks of student and teacher; None leaves the last term out.
        weights: Weights and temperature.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ, or there are not as many sets of boxes as images.
    """
    require_equal_shapes(student, teacher, "fgd")
    require_maps(student, "fgd")
    if len(boxes) != len(student):
        raise ConfigError(
            f"fgd must get the boxes of every image. Received {len(boxes)} sets for "
            f"{len(student)} images. Give an empty (0, 4) tensor for an image without objects."
        )
    student, teacher = in_float32(student, teacher.detach())
    count = len(student)
    ours, theirs = (_attention_of(each, weights.temperature) for each in (student, teacher))
    inside, outside = _object_masks(boxes, image_size, teacher)
    errors = (student - teacher).square() * theirs[0][:, None] * theirs[1][:, :, None, None]
    per_position = errors.sum(dim=1)
    total = weights.foreground * (per_position * inside).sum() / count
    total = total + weights.background * (per_position * outside).sum() / count
    apart = [(one - two).abs().sum() / count for one, two in zip(ours, theirs, strict=True)]
    total = total + weights.attention * (apart[0] + apart[1])
    if relations is None:
        return total
    related = (relations[0](student) - relations[1](teacher)).square().sum() / count
    return total + weights.relation * related


def _attention_of(features: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return spatial attention `(n, h, w)` and channel attention `(n, channels)`."""
    count, channels, height, width = features.shape
    sizes = features.abs()
    spatial = functional.softmax(sizes.mean(dim=1).flatten(1) / temperature, dim=1)
    across = functional.softmax(sizes.mean(dim=(2, 3)) / temperature, dim=1)
    return height * width * spatial.view(count, height, width), channels * across


def _object_masks(
    boxes: Sequence[Tensor], image_size: tuple[int, int], features: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weights of positions inside and outside of objects, `(n, h, w)` each."""
    count, _, height, width = features.shape
    inside = features.new_zeros((count, height, width))
    scale = features.new_tensor((width / image_size[1], height / image_size[0]))
    for plane, found in zip(inside, boxes, strict=True):
        placed = found.to(features.device, features.dtype).view(-1, 4) * scale.repeat(2)
        lows, highs = placed[:, :2].floor().long(), placed[:, 2:].ceil().long()
        corners = torch.cat((lows, highs), dim=1).clamp(min=0).tolist()
        for left, top, right, bottom in corners:
            # As published: both ends count, and the area is that of the whole box.
            area = (right + 1 - left) * (bottom + 1 - top)
            part = plane[top : bottom + 1, left : right + 1]
            part.clamp_(min=1 / max(area, 1))
    outside = (inside == 0).to(features.dtype)
    return inside, outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1)


def crosskd(
    crossed: Sequence[Tensor],
    teacher: Sequence[Tensor],
    num_classes: int | None = None,
    *,
    beta: float = 1.0,
) -> Tensor:
    """Return the distance of cross-head predictions from the teacher's (arXiv 2306.11369).

    A cross-head prediction is what the teacher's head makes of the student's features, so that the
    student's own head learns from labels alone. Scores are compared by the quality focal loss
    `BCE(c, s(t)) |s(c) - s(t)|^beta` with s for the sigmoid (section 3.3). The paper compares boxes
    in the way of each detector; here, for raw maps of YOLO heads, as `split_distill` does: cross
    entropy of centres, absolute difference of sizes, both times the teacher's objectness.

    Args:
        crossed: Cross-head predictions, one tensor `(n, channels, h, w)` or `(n, classes)` per
            output.
        teacher: The teacher's own, of the same shapes.
        num_classes: Classes without background of YOLO heads; None if all values are scores.
        beta: Exponent.

    Returns:
        A scalar: the sum over outputs of means over elements.

    Raises:
        ConfigError: Numbers or shapes differ, or do not fit the number of classes.
    """
    require_equal_counts(crossed, teacher, "crosskd")
    total = crossed[0].new_zeros((), dtype=torch.float32)
    for found, wanted in zip(crossed, teacher, strict=True):
        require_equal_shapes(found, wanted, "crosskd")
        if num_classes is None:
            total = total + _quality_focal(*in_float32(found, wanted.detach()), beta=beta)
        else:
            parts = [anchor_parts(one, num_classes) for one in (found, wanted.detach())]
            total = total + _crossed_boxes(parts[0], parts[1], beta)
    return total


def _crossed_boxes(found: Tensor, wanted: Tensor, beta: float) -> Tensor:
    objectness = wanted[:, :, 4:5].sigmoid()
    centres = _cross_entropy(found[:, :, :2], wanted[:, :, :2].sigmoid())
    sizes = (found[:, :, 2:4] - wanted[:, :, 2:4]).abs()
    placed = ((centres + sizes) * objectness).sum(dim=2).mean()
    return placed + _quality_focal(found[:, :, 4:], wanted[:, :, 4:], beta=beta)


def _quality_focal(found: Tensor, wanted: Tensor, *, beta: float) -> Tensor:
    target = wanted.sigmoid()
    weights = (found.sigmoid() - target).abs().pow(beta)
    return (_cross_entropy(found, target) * weights).mean()


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
