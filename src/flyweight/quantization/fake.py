"""Quantizers: modules and functions by which float tensors hold what integers could stand for."""

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.quantization.grids import (
    HIGHEST,
    HIGHEST_BY_BITS,
    LOWEST,
    RELU6_SCALE,
    WEIGHT_HIGHEST,
    WEIGHT_LOWEST,
    Grid,
)
from flyweight.quantization.rounding import (
    ClippedRounding,
    FixedRounding,
    HeldWeight,
    LearnedRounding,
    Steps,
    WeightRounding,
    by_channel,
    levels_of,
)

_SMALLEST_SCALE = 1e-12
_LARGEST_BIAS = float(1 << 30)
"""Largest integer of a bias: half of what 32 bits hold, so that sums have the other half."""
_MOST_CHANGE = 16.0
"""How many times larger or smaller than at the start a trained step may become."""
_SMALLEST_FOLDING = 1e-12
_FORGET = 0.01
"""Share of the newest integers in their average; of the first 100 steps it is the plain mean."""


class Quantizer(nn.Module):
    """The grid of one tensor.

    Attributes:
        scale: Step of the grid, shape ().
        zero_point: The integer that stands for 0, shape ().
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        # Scalars: ONNX Runtime refuses tensors of one element here.
        self.register_buffer("scale", torch.tensor(grid.scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(grid.zero_point, dtype=torch.int32))

    def current(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, both of shape (), without gradients."""
        return self.scale, self.zero_point

    def grid(self) -> Grid:
        """Return the grid as it is now."""
        scale, zero_point = self.current()
        return Grid(float(scale), int(zero_point))

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` rounded to the grid, in the operation that exporters know."""
        return torch.fake_quantize_per_tensor_affine(values, *self.current(), LOWEST, HIGHEST)

    def rounded(self, values: Tensor, steps: Steps) -> Tensor:
        """Return the same faster, and with the gradients of the steps where they are trained.

        Args:
            values: Of any shape; half precision becomes single.
            steps: What `grid` returns at present.
        """
        made: Tensor = FixedRounding.apply(_single(values), steps)
        return made


class LearnedQuantizer(Quantizer):
    """A grid whose step is trained.

    The parameters are relative to the start, so that any optimizer changes a step by a share of
    itself. A step stays within 16 times of what it was, whatever the optimizer does.

    Args:
        grid: The grid at the start.
        clipped: Train the end of the range by PACT instead of the step by LSQ+.
        limit: The largest value that the tensor can have.

    Attributes:
        factor: The step as a multiple of the first one, shape ().
        shift: How far the zero point moved, as a share of 255 levels, shape (); None where the
            range begins at zero, as after ReLU, and by PACT.
    """

    def __init__(self, grid: Grid, *, clipped: bool, limit: float | None) -> None:
        nn.Module.__init__(self)
        self.start, self.clipped = grid, clipped
        self.most = RELU6_SCALE if limit == 6 else grid.scale * _MOST_CHANGE
        self.factor = nn.Parameter(torch.ones(()))
        moves = not clipped and LOWEST < grid.zero_point < HIGHEST
        self.shift = nn.Parameter(torch.zeros(())) if moves else None

    @torch.no_grad()
    def current(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, both of shape (), without gradients."""
        start = np.float32(self.start.scale)
        scale = (torch.nan_to_num(self.factor, 1.0) * float(start)).clamp(
            self.start.scale / _MOST_CHANGE, self.most
        )
        zero = torch.full_like(scale, float(self.start.zero_point))
        if self.shift is not None:
            zero = zero + torch.nan_to_num(self.shift) * float(HIGHEST - LOWEST)
        return scale, zero.round().clamp(LOWEST, HIGHEST).int()

    def rounded(self, values: Tensor, steps: Steps) -> Tensor:
        """Return `values` rounded to the grid."""
        start, values = self.start.scale, _single(values)
        if self.clipped:
            made: Tensor = ClippedRounding.apply(values, self.factor, steps, start)
        else:
            made = LearnedRounding.apply(values, self.factor, self.shift, steps, start)
        return made


class WeightQuantizer(nn.Module):
    """The scales of one weight, which are stored instead of taken from its largest values.

    Args:
        scales: Shape (channels,).
        bits: 8 or 7.
        learned: Whether the scales are trained by LSQ.
        shape: Of the weight, if its integers are averaged to be held later; None otherwise.
        gain: What a folded normalisation multiplies with, to be held with them; None without.

    Attributes:
        scales: At the start of a training, or for good; shape (channels,).
        factor: The scales as multiples of those, shape (channels,); None where not trained.
        integers: Average of the integers of the last steps, of the shape of the weight; None where
            they are never held.
        gain: Of the normalisation at the last step with counted integers, shape (channels,). It is
            held, too: with fixed integers it would move the bias alone, many times too far.
    """

    scales: Tensor
    integers: Tensor | None
    gain: Tensor | None

    def __init__(
        self,
        scales: Tensor,
        bits: int,
        *,
        learned: bool = False,
        shape: tuple[int, ...] | None = None,
        gain: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.highest = HIGHEST_BY_BITS[bits]
        self.register_buffer("scales", scales.detach().clone())
        self.factor = nn.Parameter(torch.ones_like(scales)) if learned else None
        self.register_buffer("integers", None if shape is None else scales.new_zeros(shape))
        kept = None if gain is None or shape is None else gain.detach().clone()
        self.register_buffer("gain", kept)

    @torch.no_grad()
    def current(self) -> Tensor:
        """Return the scales as they are now, shape (channels,), without gradients."""
        if self.factor is None:
            return self.scales
        factor = torch.nan_to_num(self.factor, 1.0)
        return self.scales * factor.clamp(1 / _MOST_CHANGE, _MOST_CHANGE)

    def rounded(self, weight: Tensor, scales: Tensor, folding: Tensor | None = None) -> Tensor:
        """Return the weight on the grid of `scales`, which are `current` or larger.

        Args:
            weight: Folded.
            scales: Shape (channels,).
            folding: By what a normalisation multiplied every channel, shape (channels,), or None.
        """
        start = self._start(folding)
        made: Tensor = WeightRounding.apply(weight, self.factor, scales, start, self.highest)
        return made

    @torch.no_grad()
    def _start(self, folding: Tensor | None) -> Tensor:
        """Return what gradients of the factor are divided by, shape (channels,).

        What is trained is the weight before folding, with a step that is `folding` times smaller,
        and LSQ is for that step: a relative change of it is `folding` squared times that of the
        step of a folded weight. Otherwise steps move a hundred times as fast as weights where
        `folding` is 0.1, which is usual. Large ones, of channels that are nearly constant, do not
        make it faster.
        """
        if folding is None:
            return self.scales
        return self.scales / folding.square().clamp(_SMALLEST_FOLDING, 1.0)

    @torch.no_grad()
    def count(self, weight: Tensor, scales: Tensor, step: int, *, last: bool) -> None:
        """Take the integers of a training step into their average.

        At the last step before they are held, each becomes the nearer one of the two integers
        around the weight: an average over steps in which a weight moved is not where it is.
        """
        if self.integers is None:
            return
        levels = levels_of(weight, scales).clamp_(-self.highest, self.highest)
        self.integers.lerp_(levels.round(), max(_FORGET, 1 / (step + 1)))
        if last:
            nearer = torch.minimum(
                torch.maximum(self.integers.round(), levels.floor()), levels.ceil()
            )
            self.integers.copy_(nearer)

    @torch.no_grad()
    def note_gain(self, gain: Tensor | None) -> None:
        """Note what the folded normalisation multiplies with at a step with counted integers."""
        if self.gain is not None and gain is not None:
            self.gain.copy_(gain)

    def held(self, weight: Tensor, scales: Tensor, folding: Tensor | None = None) -> Tensor:
        """Return the average integers, rounded, on the grid of `scales`; see `rounded`."""
        if self.integers is None:
            return self.rounded(weight, scales, folding)
        made = self.integers.round() * by_channel(scales, weight)
        start = self._start(folding)
        held: Tensor = HeldWeight.apply(weight, self.factor, made, scales, start)
        return held


def _single(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def weight_scales(weight: Tensor, bits: int = 8) -> Tensor:
    """Return one scale for each output channel, shape (weight.shape[0],), without gradients.

    Args:
        weight: Its first axis is that of the output channels.
        bits: 8, or 7 for processors that add products in 16 bits.
    """
    largest = weight.detach().flatten(1).abs().amax(1)
    return (largest / HIGHEST_BY_BITS[bits]).clamp_min(_SMALLEST_SCALE)


def least_scales(bias: Tensor, source: Tensor) -> Tensor:
    """Return the scales of a weight below which its bias does not fit in 32 bits, per channel.

    Args:
        bias: Shape (channels,).
        source: Scale of the layer's input, shape ().
    """
    return bias.detach().abs() / (source.detach() * _LARGEST_BIAS)


def rounded_weight(weight: Tensor, scales: Tensor, axis: int = 0) -> Tensor:
    """Return a weight rounded to one symmetric grid per channel, in what exporters know.

    Args:
        weight: Of a layer.
        scales: Shape (channels,).
        axis: Of the output channels.
    """
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scales, zeros, axis, WEIGHT_LOWEST, WEIGHT_HIGHEST
    )


def rounded_bias(bias: Tensor, scales: Tensor) -> Tensor:
    """Return a bias rounded to the steps of the integer sums that it is added to.

    Runtimes add it as a 32-bit integer with the scale of the input times that of the weight.

    Args:
        bias: Shape (channels,).
        scales: The steps, shape (channels,).
    """
    rounded = torch.round(bias / scales) * scales
    return bias + (rounded - bias).detach()
