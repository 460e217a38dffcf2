"""Inputs of distillation losses: shapes that must agree, and masks at the size of a map."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.errors import ConfigError


def require_equal_shapes(student: Tensor, teacher: Tensor, loss: str) -> None:
    """Check that two tensors can be compared value by value.

    Raises:
        ConfigError: Their shapes differ.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f"For {loss}, student and teacher must give tensors of one shape. Received "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}. Give both the same classes, "
            "anchors and input size, or an adaptor where features differ in width."
        )


def require_equal_counts(student: Sequence[Tensor], teacher: Sequence[Tensor], loss: str) -> None:
    """Check that student and teacher give equally many tensors, at least one.

    Raises:
        ConfigError: They do not.
    """
    if isinstance(student, Tensor) or len(student) != len(teacher) or not student:
        given = "one tensor" if isinstance(student, Tensor) else f"{len(student)}"
        raise ConfigError(
            f"For {loss}, student and teacher must give sequences of equally many maps. Received "
            f"{given} and {len(teacher)}. Give the raw outputs of the heads, one map per scale."
        )


def require_maps(features: Tensor, loss: str) -> None:
    """Check that a tensor is a feature map.

    Raises:
        ConfigError: It has another number of axes than `(n, channels, h, w)`.
    """
    if features.ndim != 4:
        raise ConfigError(
            f"For {loss}, features must have the shape (n, channels, h, w). Received "
            f"{tuple(features.shape)}. Choose a tap that gives maps."
        )


def counted_positions(mask: Tensor | None, features: Tensor) -> Tensor | None:
    """Return which positions of a map count, `(n, 1, h, w)` float.

    Args:
        mask: `(n, H, W)`, True where a pixel counts; None where all do. A position of the map
            counts if the pixel at its centre does.
        features: `(n, channels, h, w)`.
    """
    if mask is None:
        return None
    planes = mask[:, None].to(features.dtype)
    if planes.shape[-2:] == features.shape[-2:]:
        return planes
    return functional.interpolate(planes, size=features.shape[-2:], mode="nearest-exact")


def mean_over(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of `(n, channels, h, w)` over the positions that count; 0 if none does."""
    if counted is None:
        return values.mean()
    return (values * counted).sum() / (counted.sum() * values.shape[1]).clamp(min=1)


def in_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors as float32: sums over maps lose too much in 16 bits."""
    return tuple(tensor.to(torch.float32) for tensor in tensors)
