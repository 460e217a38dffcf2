"""Grids: the scale and zero point with which a tensor becomes integers."""

import math
from dataclasses import dataclass

import numpy as np

from flyweight.quantization.ranges import Range

LOWEST, HIGHEST = 0, 255
"""Integers of activations: unsigned, because ONNX Runtime is slow with signed ones."""
WEIGHT_LOWEST, WEIGHT_HIGHEST = -128, 127
"""Integers of weights. Scales are made so that the lowest one is not used."""
HIGHEST_BY_BITS = {8: WEIGHT_HIGHEST, 7: 63}
"""Bits of a weight to its largest integer. Two products of 8 bits may exceed the 16 bits that
processors without VNNI add them in; of 7 bits they never do."""
_SMALLEST = 1e-8
_UNIT = 1e-6
"""How near to 1 the end of a range must be to be that of a sigmoid."""
RELU6_SCALE = float(np.nextafter(np.float32(6 / 255), np.float32(0)))
"""A scale above 6 / 255 makes ONNX Runtime keep the clipping of a ReLU6 in float."""


@dataclass(frozen=True)
class Grid:
    """What an integer stands for: `scale * (integer - zero_point)`.

    Attributes:
        scale: Step between two neighbours.
        zero_point: The integer that stands for 0.
    """

    scale: float
    zero_point: int


def grid_of(found: Range, *, at_most: float = math.inf) -> Grid:
    """Return the grid of unsigned 8-bit integers that covers a range and zero.

    Args:
        found: The values to keep.
        at_most: Where the function that made the values clips them, for example 6.
    """
    low, high = min(found.low, 0.0), min(max(found.high, 0.0), at_most)
    steps = HIGHEST - LOWEST
    if low == 0 and abs(high - 1) < _UNIT:
        # A half, which sigmoids make of 0, must not lie between two integers:
        # runtimes round it differently.
        steps -= 1
    scale = max(float(np.float32((high - low) / steps)), _SMALLEST)
    if at_most == 6:
        scale = min(scale, RELU6_SCALE)
    return Grid(scale, min(max(round(-low / scale), LOWEST), HIGHEST))
