"""Feature maps with their channels last in memory, the layout of a processor's fast convolutions.

Recorded runs have the layout of the model's own code. Parts of them are run hundreds of times, so
their weights and what they begin with are laid out once, and every convolution keeps the layout.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from flyweight.graph.program import Call, Value

_CONVOLUTION = torch.ops.aten.conv2d.default


def maps_in(calls: Iterable[Call]) -> frozenset[int]:
    """Return the numbers of weights of convolutions and of what is computed of their results.

    Views end it: behind them the axes may mean something else. There are none where an operation
    takes strides, which hold for one layout alone.
    """
    found: set[int] = set()
    for call in calls:
        if "strided" in call.func._schema.name:
            return frozenset()
        if call.func is _CONVOLUTION and isinstance(call.args[1], Value):
            found.add(call.args[1].number)
            found.update(call.makes)
        elif not _is_view(call) and not found.isdisjoint(call.reads):
            found.update(call.makes)
    return frozenset(found)


def laid_out(values: Mapping[int, Tensor], maps: frozenset[int]) -> dict[int, Tensor]:
    """Return `values` with the channels of `maps` last in memory, where that is a processor's."""
    return {
        number: value.contiguous(memory_format=torch.channels_last)
        if number in maps and value.dim() == 4 and value.device.type == "cpu"
        else value
        for number, value in values.items()
    }


def select(source: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return `source.index_select(axis, index)` in the layout that `source` has."""
    if axis == 1 and source.dim() == 4 and source.is_contiguous(memory_format=torch.channels_last):
        return source.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)
    return source.index_select(axis, index)


def _is_view(call: Call) -> bool:
    return any(value.alias_info is not None for value in call.func._schema.returns)
