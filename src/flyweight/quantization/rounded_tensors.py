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
        function: Name of the torch function that made it; empty for an input.
    """

    quantizer: str
    scale: float
    zero_point: int
    integers: Integers
    function: str = ""


def rounded_tensors(forward: QuantizedForward, run: Callable[[], object]) -> list[Rounded]:
    """Return all tensors that a frozen network rounds in a run, in order.

    Args:
        forward: Of the network, see `network.forward_of`.
        run: Runs it.
    """
    found: list[Rounded] = []
    original, handle = forward.result, forward.handle
    function = ""

    def handled(site: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal function
        function = site.split("|")[1]
        return handle(site, func, args, kwargs)

    def result(quantizer: str, values: Tensor) -> Tensor:
        made = original(quantizer, values)
        grid = forward.grid_of(quantizer)
        scale = np.float32(grid.scale)
        integers = np.round(made.numpy() / scale) + grid.zero_point
        numbers = float(scale), grid.zero_point, integers.astype(np.uint8)
        found.append(Rounded(quantizer, *numbers, function))
        return made

    forward.__dict__.update(result=result, handle=handled)
    try:
        with torch.no_grad():
            run()
    finally:
        del forward.__dict__["result"], forward.__dict__["handle"]
    return found
