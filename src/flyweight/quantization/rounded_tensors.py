"""Rounded tensors: the integers that PyTorch computes in a run of a quantized network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyweight.quantization.network import QuantizedForward

Integers = NDArray[Any]


@dataclass(frozen=True)
class Rounded:
    """A tensor that PyTorch rounded.

    Attributes:
        quantizer: Name of its quantizer.
        scale: Of the grid.
        zero_point: Of the grid.
        integers: What it became, unsigned.
    """

    quantizer: str
    scale: float
    zero_point: int
    integers: Integers


def rounded_tensors(forward: QuantizedForward, run: Callable[[], object]) -> list[Rounded]:
    """Return all tensors that a frozen network rounds in a run, in order.

    Args:
        forward: Of the network, see `network.forward_of`.
        run: Runs it.
    """
    found: list[Rounded] = []
    original = forward.result

    def result(quantizer: str, values: Tensor) -> Tensor:
        made = original(quantizer, values)
        grid = forward.grid_of(quantizer)
        scale = np.float32(grid.scale)
        integers = np.round(made.numpy() / scale) + grid.zero_point
        found.append(Rounded(quantizer, float(scale), grid.zero_point, integers.astype(np.uint8)))
        return made

    forward.__dict__["result"] = result
    try:
        with torch.no_grad():
            run()
    finally:
        del forward.__dict__["result"]
    return found
