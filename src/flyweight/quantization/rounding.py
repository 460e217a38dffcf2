"""Rounding to grids with gradients, as plain vectorised operations.

The fused operations of PyTorch (`fake_quantize_*`) take six times as long on a CPU: they do not use
vector instructions. The values here are theirs, bit for bit; `Quantizer.forward` still uses them
where a network is exported, because exporters know them.

Gradients of the values are those of the straight-through estimator: they pass where nothing is
clipped. Gradients of steps are those of LSQ (Esser et al. 2020, https://arxiv.org/abs/1902.08153)
and LSQ+ (Bhalgat et al. 2020, https://arxiv.org/abs/2004.09576). For a result `y` of `x` with the
step `s`, the derivative of an element is `(y - x) / s` where it is not clipped and `y / s` where it
is. So the sum over all elements is two dot products, which costs less than a mask.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.quantization.grids import HIGHEST, LOWEST

_LEVELS = float(HIGHEST - LOWEST)
_through_range = torch.ops.aten.hardtanh_backward.default
"""The gradient where a value lies in an open interval, and 0 elsewhere."""
PACT_DECAY = 1e-4
"""L2 decay of a clip value, as the original's."""


@dataclass(frozen=True)
class Steps:
    """A grid as the numbers that rounding needs.

    Attributes:
        scale: Step between two neighbours.
        zero_point: The integer that stands for 0.
    """

    scale: float
    zero_point: int

    @property
    def inverse(self) -> float:
        """One divided by the scale, in single precision as PyTorch has it."""
        return float(np.float32(1) / np.float32(self.scale))

    @property
    def ends(self) -> tuple[float, float]:
        """Between which values nothing is clipped."""
        low = (LOWEST - self.zero_point - 0.5) * self.scale
        return low, (HIGHEST - self.zero_point + 0.5) * self.scale

    def rounded(self, values: Tensor) -> Tensor:
        """Return the values on the grid, of the same shape."""
        levels = values.mul(self.inverse).round_()
        levels.clamp_(LOWEST - self.zero_point, HIGHEST - self.zero_point)
        return levels.mul_(self.scale)


class FixedRounding(torch.autograd.Function):
    """Rounds values to a grid that is not trained."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, steps: Steps) -> Tensor:
        """Return the values on the grid."""
        ctx.save_for_backward(values)
        ctx.steps = steps
        return steps.rounded(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the values."""
        (values,) = ctx.saved_tensors
        return _through_range(gradient, values, *ctx.steps.ends), None


class LearnedRounding(torch.autograd.Function):
    """Rounds values to a grid whose step, and whose place if it has one, are trained by LSQ+."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, factor: Tensor, shift: Tensor | None, steps: Steps, start: float
    ) -> Tensor:
        """Return the values on the grid.

        Args:
            ctx: What the backward needs.
            values: Of any shape.
            factor: The step as a multiple of `start`, shape ().
            shift: The zero point as a share of all levels, shape (); None if it is not trained.
            steps: The grid that these two give.
            start: Step at the start of the training.
        """
        made = _made(ctx, values, steps)
        ctx.start, ctx.shifts = start, shift is not None
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of values, factor and shift."""
        values, made = _of_forward(ctx)
        passed = _through_range(gradient, values, *ctx.steps.ends)
        # LSQ, section 2.2: as large an update, relative to itself, as that of a weight.
        weight = (values[0].numel() * _LEVELS) ** -0.5
        of_step = (dot(gradient, made) - dot(passed, values)) / ctx.steps.scale
        factor = finite(of_step * (weight / ctx.start))
        if not ctx.shifts:
            return passed, factor, None, None, None
        of_zero = (passed.sum() - gradient.sum()) * ctx.steps.scale
        shift = finite(of_zero * (weight / (_LEVELS * ctx.start**2)))
        return passed, factor, shift, None, None


class ClippedRounding(torch.autograd.Function):
    """Rounds values to a grid whose end is trained as in PACT (https://arxiv.org/abs/1805.06085).

    As the original's preprocessing of activations, with gradients of clipped values alone and a
    decay of the clip value.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: Tensor, steps: Steps, start: float) -> Tensor:
        """Return the values on the grid; arguments as of `LearnedRounding`."""
        made = _made(ctx, values, steps)
        ctx.start = start
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of values and factor."""
        values, made = _of_forward(ctx)
        steps = ctx.steps
        passed = _through_range(gradient, values, *steps.ends)
        levels = max(steps.zero_point, HIGHEST - steps.zero_point)
        end, first = steps.scale * levels, ctx.start * levels
        of_end = (dot(gradient, made) - dot(passed, made)) / end + PACT_DECAY * end
        return passed, finite(of_end / first), None, None


def _made(ctx: Any, values: Tensor, steps: Steps) -> Tensor:
    """Round values, and keep what the backward needs."""
    made = steps.rounded(values)
    ctx.save_for_backward(values)
    ctx.steps, ctx.made, ctx.version = steps, None, 0
    if not made.is_inference():
        ctx.made, ctx.version = made.detach(), made._version
    return made


def _of_forward(ctx: Any) -> tuple[Tensor, Tensor]:
    """Return values and result of a forward.

    The network may have written into the result, as activations in place do: it is made again.
    """
    (values,) = ctx.saved_tensors
    made, ctx.made = ctx.made, None
    if made is None or made._version != ctx.version:
        made = ctx.steps.rounded(values)
    return values, made


class WeightRounding(torch.autograd.Function):
    """Rounds a weight to one symmetric grid for each output channel."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, factor: Tensor | None, scales: Tensor, start: Tensor, highest: int
    ) -> Tensor:
        """Return the weight on the grid.

        Args:
            ctx: What the backward needs.
            weight: Its first axis is that of the output channels.
            factor: The scales as multiples of `start`, shape (channels,); None if not trained.
            scales: Step of every channel, shape (channels,).
            start: Scales at the start of the training, shape (channels,).
            highest: The largest integer.
        """
        levels = levels_of(weight, scales)
        made = levels.round().clamp_(-highest, highest).mul_(by_channel(scales, weight))
        ctx.save_for_backward(weight, levels, made, scales, start)
        ctx.highest = highest
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of weight and factor."""
        weight, levels, made, scales, start = ctx.saved_tensors
        end = ctx.highest + 0.5
        passed = _through_range(gradient, levels, -end, end)
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None, None
        sums = (gradient * made - passed * weight).flatten(1).sum(1) / scales
        share = (weight[0].numel() * ctx.highest) ** -0.5
        return passed, finite(sums * share / start), None, None, None


class HeldWeight(torch.autograd.Function):
    """A weight whose integers do not change any more; its scales may."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, factor: Tensor | None, made: Tensor, scales: Tensor, start: Tensor
    ) -> Tensor:
        """Return `made`, the integers times the scales, in place of the weight."""
        ctx.save_for_backward(made, scales, start)
        return made.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return zeros for the weight, and the gradient of the factor."""
        made, scales, start = ctx.saved_tensors
        zeros = torch.zeros_like(gradient)
        if not ctx.needs_input_grad[1]:
            return zeros, None, None, None, None
        sums = (gradient * made).flatten(1).sum(1) / scales
        # The change of a weight by its scale is then the part of its own gradient along itself.
        # The share of LSQ is for errors of rounding, which are a hundred times smaller.
        squares = levels_of(made, scales).square().flatten(1).sum(1).clamp_min(1.0)
        return zeros, finite(sums / squares / start), None, None, None


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of the products of two tensors of one shape, shape ()."""
    if one.is_contiguous() and other.is_contiguous():
        return torch.dot(one.view(-1), other.view(-1))
    if one.ndim == 4 and all(
        part.is_contiguous(memory_format=torch.channels_last) for part in (one, other)
    ):
        return torch.dot(*(part.permute(0, 2, 3, 1).reshape(-1) for part in (one, other)))
    return (one * other).sum()


def finite(gradient: Tensor) -> Tensor:
    """Return a gradient of steps, 0 where it is no finite number: one bad batch must not stay."""
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def by_channel(scales: Tensor, weight: Tensor) -> Tensor:
    """Return values of output channels in a shape that broadcasts with the weight."""
    return scales.reshape(-1, *[1] * (weight.ndim - 1))


def levels_of(weight: Tensor, scales: Tensor) -> Tensor:
    """Return a weight in steps of its grid, not rounded."""
    return weight * by_channel(scales.reciprocal(), weight)
