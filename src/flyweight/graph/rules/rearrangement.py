"""Rules for operations that trade channels for positions, or look positions up."""

import math
from dataclasses import replace

import numpy as np

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.rules import orders
from flyweight.graph.rules.contraction import matrix_product
from flyweight.graph.rules.elementwise import join_broadcast
from flyweight.graph.step import Step


def pixel_shuffle(step: Step) -> Flow:
    """Every block of neighbouring channels becomes one channel of a finer image."""
    source = step.flow("self")
    axis = len(source.shape) - 3
    blocks = _blocks(step, source, axis, int(step.arguments["upscale_factor"]) ** 2)
    return _with_channels(step, source, axis, None if blocks is None else blocks[:, 0])


def pixel_unshuffle(step: Step) -> Flow:
    """Every channel becomes a block of neighbouring channels of a coarser image."""
    source = step.flow("self")
    axis = len(source.shape) - 3
    ids = step.single(source, axis)
    times = int(step.arguments["downscale_factor"]) ** 2
    return _with_channels(step, source, axis, None if ids is None else np.repeat(ids, times))


def unfold(step: Step) -> Flow:
    """Every channel becomes one per position of the window (`im2col`)."""
    source = step.flow("self")
    axis = len(source.shape) - 3
    ids = step.single(source, axis)
    times = math.prod(step.arguments["kernel_size"])
    return _with_channels(step, source, axis, None if ids is None else np.repeat(ids, times))


def fold(step: Step) -> Flow:
    """The positions of a window are summed into one channel (`col2im`)."""
    source = step.flow("self")
    axis = len(source.shape) - 2
    blocks = _blocks(step, source, axis, math.prod(step.arguments["kernel_size"]))
    return _with_channels(step, source, axis, None if blocks is None else blocks[:, 0])


def channel_shuffle(step: Step) -> Flow:
    """Channels are dealt out from groups; the same places leave every group."""
    source, groups = step.flow("self"), int(step.arguments["groups"])
    ids = step.single(source, 1)
    if ids is None:
        return step.result(*source.fields)
    rows = ids.reshape(groups, -1)
    if rows.shape[1] == 1:
        step.freeze(ids, "is the only channel of its group")
    else:
        step.identities.join(rows[:1], rows)
    return _with_channels(step, source, 1, rows.T.ravel())


def gated(step: Step) -> Flow:
    """One half of an axis is multiplied by the sigmoid of the other half (`glu`)."""
    source = step.flow("self")
    axis = int(step.arguments.get("dim", -1)) % len(source.shape)
    ids = step.single(source, axis)
    rest = tuple(found for found in source.fields if axis not in found.axes)
    if ids is None:
        return step.result(*rest)
    half = len(ids) // 2
    step.identities.join(ids[:half], ids[half:])
    return step.result(*rest, Field((axis,), ids[:half]))


def sampled(step: Step) -> Flow:
    """Images are read at the positions of a grid; channels pass."""
    source = step.flow("input")
    _freeze_fields(step, step.flow("grid"), "steers where an image is read")
    return _with_channels(step, source, 1, step.single(source, 1))


def ordered(step: Step) -> tuple[Flow, ...]:
    """Positions of one axis are put in an order that values decide; the other axes pass."""
    source = step.flow("self")
    axis = int(step.arguments.get("dim", -1)) % len(source.shape)
    rest = _pinned(step, source, axis, "is put in an order that values decide")
    return tuple(Flow(shape, rest.fields) for shape in step.shapes)


def gathered(step: Step) -> Flow:
    """Positions of one axis are gathered by index; the other axes are joined."""
    source, by = step.flow("self"), step.flow("index")
    axis = int(step.arguments["dim"]) % len(step.shapes[0])
    ids = step.single(source, axis)
    found = by.field_on(axis) if by.counted else None
    if ids is None or found is None or found.axes != (axis,):
        return looked_up(step)
    placed = orders.looked_up(step, ids, replace(by, fields=(found,)))
    source, by = (_pinned(step, flow, axis, "") for flow in (_off(source, axis), _off(by, axis)))
    rest = join_broadcast(step, [source, by], source.shape)
    return step.result(*rest, *(() if placed is None else (Field((axis,), placed.ids),)))


def _off(flow: Flow, axis: int) -> Flow:
    return replace(flow, fields=tuple(found for found in flow.fields if axis not in found.axes))


def looked_up(step: Step) -> Flow:
    """Positions of one axis are gathered or scattered by index; the other axes are joined."""
    axis = int(step.arguments["dim"]) % len(step.shapes[0])
    flows = [_pinned(step, flow, axis, "is looked up by index") for flow in step.flows()]
    shape = tuple(1 if place == axis else size for place, size in enumerate(step.shapes[0]))
    return step.result(*join_broadcast(step, flows, shape))


def replaced(step: Step) -> Flow:
    """Positions of one axis are written by index (`index_add`, `index_copy`, `index_fill`)."""
    source = step.flow("self")
    axis = int(step.arguments["dim"]) % len(source.shape)
    given = step.arguments.get("source")
    flows = [source] if not isinstance(given, Flow) else [source, given]
    pinned = [_pinned(step, flow, axis, "is looked up by index") for flow in flows]
    return step.result(*join_broadcast(step, pinned, pinned[0].shape))


def windows(step: Step) -> Flow:
    """Windows of one axis become a new last axis (`Tensor.unfold`); the other axes pass."""
    source = step.flow("self")
    axis = int(step.arguments["dimension"]) % len(source.shape)
    return step.result(*_pinned(step, source, axis, "is read through a window").fields)


def sampling_grid(step: Step) -> Flow:
    """A grid of positions is made of transformations (`affine_grid`)."""
    _freeze_fields(step, step.flow("theta"), "steers where an image is read")
    return step.result()


def renormalised(step: Step) -> Flow:
    """Every slice along an axis, or every row of an embedding, is scaled by its own norm."""
    source = step.flow("self")
    axis = int(step.arguments.get("dim", 0)) % len(source.shape)
    for found in source.fields:
        if axis not in found.axes:
            step.mix(found.ids)
    return step.result(*source.fields)


def turned(step: Step) -> Flow:
    """Images are turned; channels pass."""
    source = step.flow("self")
    turning = {axis % len(source.shape) for axis in step.arguments["dims"]}
    passing = [found for found in source.fields if not turning & set(found.axes)]
    for found in source.fields:
        if turning & set(found.axes):
            step.freeze(found.ids, "lies along an axis that is turned")
    return step.result(*passing)


def product_and_sum(step: Step) -> Flow:
    """A matrix product plus a tensor (`addmm`, `baddbmm`)."""
    operands = {name: flow for name, flow in step.arguments.items() if name != "self"}
    inside = Step(step.op, step.where, operands, step.shapes, step.ledger)
    product = matrix_product(inside)
    return step.result(*join_broadcast(step, [product, step.flow("self")], step.shapes[0]))


def _blocks(step: Step, source: Flow, axis: int, size: int) -> Ids | None:
    """Join every block of `size` neighbours; return them as rows."""
    ids = step.single(source, axis)
    if ids is None:
        return None
    rows = ids.reshape(-1, size)
    step.identities.join(rows[:, :1], rows)
    return rows


def _with_channels(step: Step, source: Flow, axis: int, ids: Ids | None) -> Flow:
    """Return the result with `ids` on `axis`; what lies along rows or columns is frozen."""
    passing = [found for found in source.fields if max(found.axes) < axis]
    for found in source.fields:
        if axis not in found.axes and found not in passing:
            step.freeze(found.ids, "lies along rows or columns that are rearranged")
    return step.result(*passing, *(() if ids is None else (Field((axis,), ids),)))


def _pinned(step: Step, flow: Flow, axis: int, why: str) -> Flow:
    """Freeze what lies on `axis`; return the tensor as if it had size one there."""
    for found in flow.fields:
        if axis in found.axes:
            step.freeze(found.ids, why)
    shape = tuple(1 if place == axis else size for place, size in enumerate(flow.shape))
    return Flow(shape, tuple(found for found in flow.fields if axis not in found.axes))


def _freeze_fields(step: Step, flow: Flow, why: str) -> None:
    for found in flow.fields:
        step.freeze(found.ids, why)
