"""Fake quantization: float tensors that hold exactly what integers could stand for.

The functions here round in the forward and hand gradients on in the backward (straight-through
estimator), except where a value is clipped.
"""

import torch
from torch import Tensor, nn

from flyweight.quantization.grids import (
    HIGHEST,
    HIGHEST_BY_BITS,
    LOWEST,
    WEIGHT_HIGHEST,
    WEIGHT_LOWEST,
    Grid,
)

_SMALLEST_SCALE = 1e-12
_LARGEST_BIAS = float(1 << 30)
"""Largest integer of a bias: half of what 32 bits hold, so that sums have the other half."""


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

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` rounded to the grid, of the same shape."""
        return torch.fake_quantize_per_tensor_affine(
            values, self.scale, self.zero_point, LOWEST, HIGHEST
        )


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


def rounded_weight(weight: Tensor, scales: Tensor) -> Tensor:
    """Return a weight rounded to one symmetric grid for each output channel."""
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scales, zeros, 0, WEIGHT_LOWEST, WEIGHT_HIGHEST
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
