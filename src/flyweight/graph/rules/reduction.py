"""Rules for operations that summarise axes or normalise along them."""

import re
from dataclasses import replace

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.rules.elementwise import elementwise, join_broadcast
from flyweight.graph.rules.normalised_weights import sums_squares
from flyweight.graph.step import Step, moved


def reduce(step: Step) -> Flow | tuple[Flow, ...]:
    """Sum, mean, max, ... over some axes.

    A norm over a weight's inputs reads them as the layer does, see `normalised_weights`; any other
    summary over channels computes across them.
    """
    source = step.flows()[0]
    if isinstance(step.arguments.get("other"), Flow):  # max and min of two tensors
        return elementwise(step)
    rank = len(source.shape)
    dims = step.arguments.get("dim", step.arguments.get("dims"))
    listed = [dims] if isinstance(dims, int) else list(dims or range(rank))
    reduced = {axis % rank for axis in listed}
    keepdim = len(step.shapes[0]) == rank and bool(step.arguments.get("keepdim", False))
    rest = [axis for axis in range(rank) if axis not in reduced]
    target = {axis: (axis if keepdim else rest.index(axis)) for axis in rest}
    fields: list[Field] = []
    for found in source.fields:
        fields.extend(_reduced(step, found, target, sums=sums_squares(step, source)))
    return tuple(Flow(shape, tuple(fields)) for shape in step.shapes)


def _reduced(step: Step, found: Field, target: dict[int, int], *, sums: bool) -> tuple[Field, ...]:
    staying = [axis for axis in found.axes if axis in target]
    if len(staying) == len(found.axes):
        return (moved(found, target),)
    if sums:
        step.ledger.consumed.append(found.ids.ravel())
    if staying:
        # What is summarised together leaves together, so that every summary is whole.
        return (moved(step.identities.collapse(found, *staying), target),)
    if not sums:
        step.mix(found.ids)
    return ()


def along_axis(step: Step) -> Flow:
    """Softmax, cumulative sums and similar: all positions of one axis depend on each other."""
    source = step.flows()[0]
    axis = int(step.arguments.get("dim", -1)) % len(source.shape)
    fields = []
    for found in source.fields:
        if found.axes == (axis,):
            step.mix(found.ids)
        elif axis in found.axes:
            # What depends on each other leaves together, so that every part stays whole.
            rest = (one for one in found.axes if one != axis)
            found = step.identities.collapse(found, *rest)
        fields.append(found)
    return step.result(*fields)


def batch_norm(step: Step) -> Flow:
    """Every channel on its own, with its own statistics and scale."""
    source = step.flow("input")
    ids = step.single(source, 1) if len(source.shape) > 1 else None
    for name in ("weight", "bias", "running_mean", "running_var"):
        _join_parameter(step, ids, step.arguments.get(name))
    if step.arguments.get("training"):
        for found in source.fields:
            if 1 not in found.axes:
                step.mix(found.ids)
    return step.result(*source.fields)


def layer_norm(step: Step) -> Flow:
    """The last axes are normalised together; what stays is normalised among itself."""
    rank = len(step.flow("input").shape)
    first = rank - len(step.arguments["normalized_shape"])
    source = _whole_from(step, step.flow("input"), first)
    for axis in range(first, rank):
        ids = step.single(source, axis)
        if ids is not None:
            step.mix(ids)
        for name in ("weight", "bias"):
            parameter = step.arguments.get(name)
            if isinstance(parameter, Flow):
                step.join(ids, step.single(parameter, axis - first))
    return step.result(*source.fields)


def _whole_from(step: Step, source: Flow, first: int) -> Flow:
    """Return a tensor whose channels leave with all of the axes from `first` on, where they can.

    Heads whose values are normalised among themselves leave whole, so that none is normalised with
    fewer values.
    """
    fields = []
    for found in source.fields:
        outside = [axis for axis in found.axes if axis < first]
        crosses = outside and len(outside) < len(found.axes)
        fields.append(step.identities.collapse(found, *outside) if crosses else found)
    return replace(source, fields=tuple(fields))


def group_norm(step: Step) -> Flow:
    """Channels are normalised in equal blocks: the same places stay in every block.

    Blocks of one channel are normalised each on their own; whether the code then counts as many
    blocks as channels stay, a trial finds out.
    """
    source = step.flow("input")
    groups = int(step.arguments["num_groups"])
    ids = step.single(source, 1)
    for name in ("weight", "bias"):
        _join_parameter(step, ids, step.arguments.get(name))
    if ids is None:
        return step.result(*source.fields)
    blocks = ids.reshape(groups, -1)
    if blocks.shape[1] > 1:
        if groups > 1:
            step.identities.join(blocks, blocks[:1])
        step.mix(ids)
    rest = tuple(found for found in source.fields if 1 not in found.axes)
    return step.result(*rest, Field((1,), ids))


def per_channel(step: Step) -> Flow:
    """PReLU and instance normalisation: one value per channel, or one for all."""
    source = step.flows()[0]
    ids = step.single(source, 1) if len(source.shape) > 1 else None
    for parameter in step.flows()[1:]:
        if parameter.shape != (1,):
            _join_parameter(step, ids, parameter)
    return step.result(*source.fields)


def _join_parameter(step: Step, ids: Ids | None, parameter: object) -> None:
    if isinstance(parameter, Flow):
        step.join(ids, step.single(parameter, 0))


def pooled_regions(step: Step) -> tuple[Flow, ...]:
    """Regions of images become a batch of small ones; channels pass."""
    source = step.flow("input")
    ids = step.single(source, 1)
    for found in source.fields:
        if 1 not in found.axes:
            step.freeze(found.ids, "lies along rows or columns that are resampled")
    fields = () if ids is None else (Field((1,), ids),)
    return tuple(Flow(shape, fields) for shape in step.shapes)


def unpooled(step: Step) -> Flow:
    """Values go back to the positions that they were pooled from; channels pass."""
    resampled = int(re.findall(r"(\d)d", step.op)[0])
    coarse = [step.flow(name) for name in ("self", "indices")]
    first = len(coarse[0].shape) - resampled
    for flow in coarse:
        for found in flow.fields:
            if max(found.axes) >= first:
                step.freeze(found.ids, "lies along rows or columns that are resampled")
    fields = (tuple(found for found in flow.fields if max(found.axes) < first) for flow in coarse)
    flows = [Flow(flow.shape[:first], kept) for flow, kept in zip(coarse, fields, strict=True)]
    return step.result(*join_broadcast(step, flows, step.shapes[0][:first]))


def spatial(step: Step) -> tuple[Flow, ...]:
    """Pooling and resizing: rows and columns change, channels pass."""
    source = step.flows()[0]
    resampled = int(re.findall(r"(\d)d", step.op)[0])  # the 2 of avg_pool2d
    first = len(source.shape) - resampled
    passing = [found for found in source.fields if max(found.axes) < first]
    for found in source.fields:
        if found not in passing:
            step.freeze(found.ids, "lies along rows or columns that are resampled")
    return tuple(Flow(shape, tuple(passing)) for shape in step.shapes)
