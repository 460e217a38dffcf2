"""The choice of a rounding, down or up, for every value of a weight, which is trained (AdaRound).

Nagel et al. 2020, https://arxiv.org/abs/2004.10568, equations 22 to 25. For every value a number
from 0 to 1 says how much of a step is added to the lower integer; a term that grows pushes these
numbers to 0 or 1.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from flyweight.quantization.grids import HIGHEST_BY_BITS
from flyweight.quantization.rounding import by_channel, levels_of

_LOW, _HIGH = -0.1, 1.1
"""Ends of the stretched sigmoid, which reaches 0 and 1."""
_SHARPEST, _BLUNTEST = 2.0, 20.0
_WARM_UP = 0.2
"""Share of the steps without the term that pushes."""
_ON_GRID = 1e-3
"""Distance from an integer, in steps, below which a weight has no choice."""


class WeightChoice(nn.Module):
    """The roundings of one weight.

    Args:
        weight: Folded, of any shape; its first axis is that of the output channels.
        scales: Its steps, shape (channels,).
        bits: 8 or 7.
    """

    def __init__(self, weight: Tensor, scales: Tensor, bits: int) -> None:
        super().__init__()
        levels = levels_of(weight, scales)
        # The largest values define the scales, so what lies on an integer stays there.
        self.settled = (levels - levels.round()).abs() < _ON_GRID
        self.lower = torch.where(self.settled, levels.round(), levels.floor())
        self.steps, self.highest = by_channel(scales, weight), HIGHEST_BY_BITS[bits]
        share = (levels - self.lower).clamp(_ON_GRID, 1 - _ON_GRID)
        stretched = (share - _LOW) / (_HIGH - _LOW)
        self.raised = nn.Parameter(torch.log(stretched / (1 - stretched)))

    def shares(self) -> Tensor:
        """Return how much of a step is added to the lower integers, from 0 to 1."""
        soft = (torch.sigmoid(self.raised) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
        return torch.where(self.settled, 0.0, soft)

    def soft(self) -> Tensor:
        """Return the weight with these shares."""
        levels = (self.lower + self.shares()).clamp(-self.highest, self.highest)
        return levels * self.steps

    def hard(self) -> Tensor:
        """Return the weight with the shares rounded."""
        levels = (self.lower + self.shares().round()).clamp(-self.highest, self.highest)
        return levels * self.steps


def undecided(choices: Iterable[WeightChoice], progress: float) -> Tensor | float:
    """Return how far the shares are from 0 and 1, averaged over all; 0 while training warms up.

    Args:
        choices: Of the weights that are trained together, at least one.
        progress: Share of the steps that are done, from 0 to 1.
    """
    done = (progress - _WARM_UP) / (1 - _WARM_UP)
    if done <= 0:
        return 0.0
    power = _SHARPEST + (_BLUNTEST - _SHARPEST) * (1 - done)
    parts = [1 - (2 * one.shares() - 1).abs().pow(power) for one in choices]
    return torch.stack([part.sum() for part in parts]).sum() / sum(part.numel() for part in parts)
