"""Losses on feature maps, for one tap each.

Student and teacher have maps of one size; where widths differ, an adaptor has widened the
student's. The teacher's tensors never receive a gradient. Everything is computed in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.distillation.loss_inputs import (
    counted_positions,
    in_float32,
    mean_over,
    require_equal_shapes,
    require_maps,
)
from flyweight.errors import ConfigError

_SMALL = 1e-6
"""Added to a standard deviation, which may be 0; the value of the published code of PKD."""


def l2(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return `mean((s - t)^2)`, the `l2_loss` of PaddleSlim (arXiv 1412.6550 on features).

    Args:
        student: Features of any shape; maps `(n, channels, h, w)` where there is a mask.
        teacher: Likewise, of the same shape.
        mask: `(n, H, W)`, True where a pixel counts; None where all do.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ.
    """
    require_equal_shapes(student, teacher, "l2")
    student, teacher = in_float32(student, teacher.detach())
    squares = (student - teacher).square()
    if mask is None:
        return squares.mean()
    require_maps(student, "l2 with a mask")
    return mean_over(squares, counted_positions(mask, student))


def fsp(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Return the flow of solution procedure loss, `mean((G_s - G_t)^2)` of two layers' Gram matrix.

    `G(a, b)[n, i, j] = 1 / (h w) sum_hw a[n, i, h, w] b[n, j, h, w]` (Yim et al., CVPR 2017,
    equations 1 and 2; PaddleSlim's `fsp_loss`). Where the two layers' maps differ in size, the
    larger one is averaged to the size of the other.

    Args:
        student: Maps of an earlier and of a later layer, `(n, channels, h, w)` each.
        teacher: Likewise, with the same channels.

    Returns:
        A scalar.

    Raises:
        ConfigError: The matrices have other shapes, because widths differ.
    """
    ours, theirs = _gram(*student), _gram(teacher[0].detach(), teacher[1].detach())
    require_equal_shapes(ours, theirs, "fsp")
    return (ours - theirs).square().mean()


def _gram(first: Tensor, second: Tensor) -> Tensor:
    for features in (first, second):
        require_maps(features, "fsp")
    first, second = in_float32(first, second)
    height = min(first.shape[2], second.shape[2])
    width = min(first.shape[3], second.shape[3])
    pooled = [functional.adaptive_avg_pool2d(each, (height, width)) for each in (first, second)]
    return torch.einsum("nihw,njhw->nij", *pooled) / (height * width)


def attention(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Return the attention transfer loss, `mean((Q_s - Q_t)^2)`.

    Q is the map `mean_c |a|^power` of an image as a vector of length 1 (arXiv 1612.03928, section
    3.1, as the authors' code computes it). Widths may differ.

    Args:
        student: `(n, channels, h, w)`.
        teacher: `(n, channels, h, w)` of the same n, h and w.
        power: Exponent.

    Returns:
        A scalar.

    Raises:
        ConfigError: The sizes of the maps differ.
    """
    ours, theirs = (_attention_map(each, power) for each in (student, teacher.detach()))
    require_equal_shapes(ours, theirs, "attention")
    return (ours - theirs).square().mean()


def _attention_map(features: Tensor, power: float) -> Tensor:
    require_maps(features, "attention")
    (features,) = in_float32(features)
    return functional.normalize(features.abs().pow(power).mean(dim=1).flatten(1))


def cwd(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Return the channel-wise divergence, `T^2 / (n channels) sum KL(p_t, p_s)`.

    p is the softmax of `features / T` over the positions of one channel (arXiv 2011.13256,
    equations 4 and 5). With a mask, the softmax is over the positions that count.

    Args:
        student: `(n, channels, h, w)`: features, or scores of a segmenter.
        teacher: Likewise, of the same shape.
        temperature: T.
        mask: `(n, H, W)`, True where a pixel counts; None where all do.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ.
    """
    require_equal_shapes(student, teacher, "cwd")
    require_maps(student, "cwd")
    student, teacher = in_float32(student, teacher.detach())
    counted = counted_positions(mask, student)
    logs = [_log_shares(each / temperature, counted) for each in (student, teacher)]
    distance = logs[1].exp() * (logs[1] - logs[0])
    if counted is not None:
        distance = distance * counted.flatten(2)
    count, channels = student.shape[:2]
    return temperature**2 * distance.sum() / (count * channels)


def _log_shares(features: Tensor, counted: Tensor | None) -> Tensor:
    """Return the log softmax `(n, channels, positions)` over the positions that count."""
    if counted is not None:
        # Finite, so that an image in which nothing counts gives 0, not nan.
        features = features.masked_fill(counted == 0, torch.finfo(features.dtype).min / 2)
    return functional.log_softmax(features.flatten(2), dim=2)


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean squared difference of normalised features: 1 minus their correlation.

    Every channel is shifted and scaled to mean 0 and standard deviation 1 over the batch and all
    positions, `mean((s - t)^2) / 2` (arXiv 2207.02039, equations 2 to 4).

    Args:
        student: `(n, channels, h, w)`.
        teacher: Likewise, of the same shape.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ.
    """
    require_equal_shapes(student, teacher, "pkd")
    require_maps(student, "pkd")
    (ours, theirs) = (_centred(each) for each in (student, teacher.detach()))
    # The square of the difference is expanded: no normalised map is made, which halves the cost.
    own, other = _mean_product(ours, ours), _mean_product(theirs, theirs)
    count = student.numel() // student.shape[1]
    scale, other_scale = _deviation(own, count), _deviation(other, count)
    common = _mean_product(ours, theirs) / (scale * other_scale)
    halves = (own / scale.square() + other / other_scale.square()) / 2 - common
    return halves.mean()


def _centred(features: Tensor) -> Tensor:
    (features,) = in_float32(features)
    return features - features.mean(dim=_BATCH_AND_POSITIONS, keepdim=True)


def _mean_product(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean product of each channel, `(channels,)`."""
    return (one * other).mean(dim=_BATCH_AND_POSITIONS)


def _deviation(variance: Tensor, count: int) -> Tensor:
    """Return the standard deviation as the published code divides by it: unbiased, plus 1e-6."""
    unbiased = variance * (count / max(count - 1, 1))
    # The root of 0 has no gradient; a channel that is constant gives 0 for any divisor.
    return unbiased.where(unbiased > 0, torch.ones_like(unbiased)).sqrt() + _SMALL


_BATCH_AND_POSITIONS = (0, 2, 3)


def mgd(
    student: Tensor,
    teacher: Tensor,
    generate: Callable[[Tensor], Tensor],
    *,
    masked_share: float = 0.65,
    kept: Tensor | None = None,
) -> Tensor:
    """Return the masked generative distillation loss, `sum((generate(s * kept) - t)^2) / n`.

    Random positions of the student's map are set to 0, and a small network generates the teacher's
    whole map from the rest (arXiv 2205.01529, equations 4 to 6).

    Args:
        student: `(n, channels, h, w)`.
        teacher: Likewise, of the same shape.
        generate: The generator, which learns with the student: `adaptors.Generator`.
        masked_share: Probability that a position is set to 0.
        kept: `(n, 1, h, w)`, 1 where a position stays; None draws it.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ, or the share is not within [0, 1).
    """
    require_equal_shapes(student, teacher, "mgd")
    require_maps(student, "mgd")
    if not 0 <= masked_share < 1:
        raise ConfigError(
            f"masked_share must be within 0 and 1, without 1. Received {masked_share}. "
            "Give for example 0.65."
        )
    student, teacher = in_float32(student, teacher.detach())
    if kept is None:
        drawn = torch.rand_like(student[:, :1])
        kept = (drawn >= masked_share).to(student.dtype)
    made = generate(student * kept)
    return (made.to(torch.float32) - teacher).square().sum() / len(student)
