"""Bit-exact quantization: the runtime computes what PyTorch computes, to the last bit.

Products and sums of integers are exact in float32 as long as sums stay below 2^24. What remains are
the divisions by scales, which are exact where scales are powers of two, and the rounding at ties,
where runtimes differ unless zero points are even. So with such grids the float computation of fake
quantization and the integer computation of a runtime agree in every bit, where both round the same
tensors; see `openvino_rounding` for the ones that OpenVINO does not round.

A scale of 2^-5 is too large for ReLU6 in ONNX Runtime (6 / 255 is the most), and 2^-6 clips at 4.
Where possible, the layer before a ReLU6 is scaled by 255 * 2^-5 / 6 and what reads it by the
inverse; its limit is then the last level of the grid, and a ReLU takes its place.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.errors import PlanError, counted
from flyweight.quantization.grids import HIGHEST, HIGHEST_BY_BITS, LOWEST, Grid
from flyweight.quantization.quantization_plan import IntegerLayer, QuantizationPlan
from flyweight.quantization.ranges import Range, RangeObserver
from flyweight.quantization.rounding import by_channel
from flyweight.quantization.sites import RecordedSites, Site

MOST = 1 << 24
"""Integers below are exact in float32."""
RELU6_GRID = Grid(2.0**-5, 0)
"""Of a ReLU6 whose limit was moved to the last level."""
_FACTOR = HIGHEST * RELU6_GRID.scale / 6
_LARGEST_RELU6 = 2.0**-6
_SMALLEST_POWER = -100
_MOST_DOUBLINGS = 40


@dataclass(frozen=True)
class Unclipped:
    """A ReLU6 that becomes a ReLU, because its limit becomes the last level of its grid.

    Attributes:
        site: Of the ReLU6.
        maker: The layer before it, which is scaled up.
        readers: The layers that read it, which are scaled down.
    """

    site: str
    maker: IntegerLayer
    readers: tuple[IntegerLayer, ...]


def exact_grid(observer: RangeObserver, found: Range, limit: float | None = None) -> Grid:
    """Return the grid with a power of two as scale and an even zero point.

    Of the two powers next to the scale of the range, it is the one with the smaller squared error
    over what was observed.

    Args:
        observer: Of the tensor.
        found: The range to keep, see `ranges.range_of`.
        limit: The largest value that the tensor can have, for example 6.
    """
    high = max(found.high, 0.0) if limit is None else min(max(found.high, 0.0), limit)
    low = min(found.low, 0.0)
    power = _power_above((high - low) / (HIGHEST - LOWEST))
    grids = [_grid(2.0**one, low) for one in (power, power - 1)]
    if limit == 6:
        grids = [one for one in grids if one.scale <= _LARGEST_RELU6] or [Grid(_LARGEST_RELU6, 0)]
    return min(grids, key=lambda one: _error(observer, one))


def _power_above(scale: float) -> int:
    return max(math.ceil(math.log2(scale)), _SMALLEST_POWER) if scale > 0 else _SMALLEST_POWER


def _grid(scale: float, low: float) -> Grid:
    even = 2 * round(-low / scale / 2)
    return Grid(scale, min(max(even, LOWEST), HIGHEST - 1))


def _error(observer: RangeObserver, grid: Grid) -> float:
    middles = (observer.edges[:-1] + observer.edges[1:]) / 2
    levels = np.clip(np.round(middles / grid.scale) + grid.zero_point, LOWEST, HIGHEST)
    made = (levels - grid.zero_point) * grid.scale
    return float(np.sum(observer.counts * (middles - made) ** 2))


def power_scales(
    weight: Tensor, bias: Tensor | None, scales: Tensor, bits: int, source: Grid
) -> Tensor:
    """Return powers of two as scales of a weight's channels, shape (channels,).

    Of the power above a scale and the one below, each channel has that with the smaller squared
    error; where the sums of a channel may reach 2^24, a larger one.

    Args:
        weight: Folded; its first axis is that of the channels.
        bias: Shape (channels,); None without.
        scales: At which no value is clipped.
        bits: Of the weight.
        source: Grid of what the layer reads.
    """
    above = torch.exp2(torch.ceil(torch.log2(scales)))
    highest = HIGHEST_BY_BITS[bits]

    def levels(steps: Tensor) -> Tensor:
        return torch.round(weight / by_channel(steps, weight)).clamp(-highest, highest)

    def error(steps: Tensor) -> Tensor:
        made = levels(steps) * by_channel(steps, weight)
        return (weight - made).flatten(1).square().sum(1)

    below = above / 2
    found = torch.where(error(below) < error(above), below, above)
    # On the meta device, scales are read from a checkpoint afterwards.
    for _ in range(0 if weight.is_meta else _MOST_DOUBLINGS):
        steps = None if bias is None else bias / (found * source.scale)
        beyond = largest_sums(levels(found), steps, source.zero_point) >= MOST
        if not beyond.any():
            break
        found = torch.where(beyond, 2 * found, found)
    return found


def largest_sums(levels: Tensor, bias: Tensor | None, zero_point: int) -> Tensor:
    """Return the largest magnitude that a sum of products may have on its way, in double precision.

    Args:
        levels: Integers of a weight; the first axis is that of the output channels.
        bias: In steps of the sums, shape (channels,); None without.
        zero_point: Of what the layer reads.

    Returns:
        Shape (channels,).
    """
    rows = levels.double().flatten(1)
    up, down = rows.clamp_min(0).sum(1), (-rows).clamp_min(0).sum(1)
    high, low = HIGHEST - zero_point, zero_point - LOWEST
    most = torch.maximum(up * high + down * low, down * high + up * low)
    return most if bias is None else most + bias.double().abs()


def unclipped(recorded: RecordedSites, plan: QuantizationPlan) -> tuple[Unclipped, ...]:
    """Return the ReLU6 whose limit can be moved to the last level of a grid.

    Args:
        recorded: The sites of the network.
        plan: From `placement.place`, of the same recording.
    """
    own = {layer.operation for layer in plan.own_layers}
    makers = {layer.result: layer for layer in plan.layers.values() if layer.operation in own}
    found = []
    for site in recorded.sites:
        name = plan.outputs.get(site.name, "")
        maker = makers.get(name)
        if maker is None or plan.limits.get(name) != 6 or not _scalable(maker):
            continue
        readers = [plan.layers.get(one.name) for one in _takers(recorded, site)]
        layers = tuple(one for one in readers if one is not None and one.operation in own)
        if readers and len(layers) == len(readers) and not _is_returned(recorded, site):
            found.append(Unclipped(site.name, maker, layers))
    return tuple(found)


def _takers(recorded: RecordedSites, site: Site) -> Iterable[Site]:
    return [one for one in recorded.sites if not set(site.makes).isdisjoint(one.reads)]


def _is_returned(recorded: RecordedSites, site: Site) -> bool:
    return any(number in recorded.outputs for number in site.makes)


def _scalable(layer: IntegerLayer) -> bool:
    norm = layer.norm
    return norm is None or (norm.scale is not None and norm.shift is not None)


@torch.no_grad()
def unclip_(
    model: nn.Module, plan: QuantizationPlan, found: Iterable[Unclipped]
) -> QuantizationPlan:
    """Scale the layers around every ReLU6 in place; return the plan in which it is a ReLU."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    sites, limits = list(plan.relus), dict(plan.limits)
    for one in found:
        norm = one.maker.norm
        scaled = (one.maker.weight, one.maker.bias) if norm is None else (norm.scale, norm.shift)
        for name in scaled:
            if name is not None:
                tensors[name].mul_(_FACTOR)
        for reader in one.readers:
            tensors[reader.weight].div_(_FACTOR)
        sites.append(one.site)
        limits.pop(one.maker.result)
    return replace(plan, relus=tuple(sites), limits=limits)


def exact_grids(
    plan: QuantizationPlan, observed: Mapping[str, RangeObserver], ranges: Mapping[str, Range]
) -> QuantizationPlan:
    """Return the plan with grids on which every runtime computes the same.

    Args:
        plan: What was observed by.
        observed: Quantizer to the values of its tensor.
        ranges: Quantizer to the range to keep.
    """
    clipped = {plan.outputs[site] for site in plan.relus}
    grids = {
        name: RELU6_GRID
        if name in clipped
        else exact_grid(observed[name], ranges[name], plan.limits.get(name))
        for name in plan.quantizers
    }
    return replace(plan.with_grids(grids), exact=True, own_scales=True)


def require_exact(operation: str, levels: Tensor, bias: Tensor | None, zero_point: int) -> None:
    """Check that the sums of a layer are exact in float32.

    Args:
        operation: Name of the layer.
        levels: As for `largest_sums`.
        bias: Likewise.
        zero_point: Likewise.

    Raises:
        PlanError: The sum of a channel may reach 2^24.
    """
    most = largest_sums(levels, bias, zero_point)
    beyond = int((most >= MOST).sum())
    if beyond:
        raise PlanError(
            "Sums must stay below 2^24 to be exact in float32. Received the layer "
            f"'{operation}', where {counted(beyond, 'channel')} may reach {float(most.max()):.3g}. "
            "Name it in skip, or quantize without exact."
        )
