"""Rules for operations that read some channels and make others; their MACs are counted here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyweight.graph.cost import Geometry
from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.rules.elementwise import join_broadcast
from flyweight.graph.step import CountedAxis, CountedLayer, Step


def convolution(step: Step) -> Flow:
    """Convolution in one to three dimensions, grouped and depthwise too."""
    weight = step.flow("weight")
    groups = int(step.arguments.get("groups", 1))
    source = step.flow("input")
    _note_lost(step, weight)
    _require_batch(source, weight)
    made = _convolve(step, source, weight, groups)
    return _convolved(step, source, weight, made)


def deformable_convolution(step: Step) -> Flow:
    """Deformable convolution, torchvision's: offsets and masks act on positions, not channels."""
    weight = step.flow("weight")
    source = step.flow("input")
    groups = source.shape[1] // weight.shape[1]
    for name in ("offset", "mask"):
        ids = step.single(step.flow(name), 1)
        if ids is not None:
            step.freeze(ids, "steers a deformable convolution")
    if int(step.arguments.get("n_offset_grps", 1)) > 1:
        _freeze(step, step.single(source, 1), "is read by several offset groups")
    made = _convolve(step, source, weight, groups)
    return _convolved(step, source, weight, made, paddle=False)


def _note_lost(step: Step, weight: Flow) -> None:
    """Note of what tensors a weight is computed in a way that its channels were not followed."""
    if any(
        size > 1 and weight.field_on(axis) is None for axis, size in enumerate(weight.shape[:2])
    ):
        step.ledger.lost.extend(weight.lost)


def _require_batch(source: Flow, weight: Flow) -> None:
    if len(source.shape) != len(weight.shape):
        raise ValueError("a convolution must have a batch axis for its channels to be the second")


def _convolve(step: Step, source: Flow, weight: Flow, groups: int) -> Ids | None:
    """Join inputs to the weight's second axis; return the identities of the outputs."""
    inputs = step.single(source, 1)
    reads, makes = step.single(weight, 1), step.single(weight, 0)
    per_group = weight.shape[1]
    if groups == 1:
        step.join(inputs, reads)
        _consume(step, weight, reads)
        _produce(step, makes)
        return makes
    if per_group == 1:
        return _depthwise(step, inputs, makes, groups)
    # One list of kept inputs serves every group, because the weight has one second axis.
    if inputs is None:
        _freeze(step, reads, "reads a tensor whose size is fixed")
    else:
        rows = inputs.reshape(groups, per_group)
        step.identities.join(rows, rows[:1] if reads is None else reads[None, :])
        _consume(step, weight, reads)
    if makes is not None:
        rows = makes.reshape(groups, -1)
        if rows.shape[1] == 1:
            _freeze(step, makes, "is the only output of its group")
        else:
            step.identities.join(rows, rows[:1])
            _produce(step, makes)
    return makes


def _depthwise(step: Step, inputs: Ids | None, makes: Ids | None, groups: int) -> Ids | None:
    """One input channel a group: it leaves together with the outputs made from it alone."""
    if inputs is None or makes is None:
        _freeze(step, inputs if makes is None else makes, "meets a tensor whose size is fixed")
        return makes
    step.identities.join(inputs[:, None], makes.reshape(groups, -1))
    return makes


def _convolved(
    step: Step, source: Flow, weight: Flow, made: Ids | None, *, paddle: bool = True
) -> Flow:
    _join_bias(step, made)
    batch = _batch_fields(step, source)
    return _applied(step, weight, made, batch, step.shapes[0], paddle=paddle)


def _batch_fields(step: Step, source: Flow) -> tuple[Field, ...]:
    """Return what lies along the batch; rows and columns are read through a window."""
    rest = [found for found in source.fields if 1 not in found.axes]
    for found in rest:
        if found.axes != (0,):
            step.freeze(found.ids, "lies along rows or columns that are convolved")
    return tuple(found for found in rest if found.axes == (0,))


def _applied(
    step: Step,
    weight: Flow,
    made: Ids | None,
    batch: tuple[Field, ...],
    at: tuple[int, ...],
    *,
    paddle: bool = True,
) -> Flow:
    """Count one use of the kernel per image and position of the shape `at`."""
    positions = math.prod(at[2:]) * (1 if batch else at[0])
    images = [CountedAxis(at[0], found.ids) for found in batch]
    kernel = CountedAxis(math.prod(weight.shape[2:]))
    axes = (*images, *_counted(weight, 0, 1), kernel)
    step.count(positions, axes, paddle=paddle, layer=_layer(step, weight, made))
    return step.result(*batch, *_field(1, made))


def _layer(step: Step, weight: Flow, made: Ids | None) -> CountedLayer | None:
    """Return a plain convolution of images as a layer that can be timed by itself."""
    if step.op not in ("conv2d", "conv_transpose2d"):
        return None
    source, result = step.flow("input"), step.shapes[0]
    kernel, dilation = weight.shape[2:], _pair(step.arguments["dilation"])
    padding = step.arguments["padding"]
    if isinstance(padding, str):
        spans = [each * (size - 1) for each, size in zip(dilation, kernel, strict=True)]
        padding = [span // 2 if padding == "same" else 0 for span in spans]
    groups = int(step.arguments.get("groups", 1))
    geometry = Geometry(
        kind="convolution" if step.op == "conv2d" else "transposed",
        images=source.shape[0],
        size=source.shape[2:],
        kernel=kernel,
        stride=_pair(step.arguments["stride"]),
        padding=_pair(padding),
        dilation=dilation,
        output_padding=_pair(step.arguments.get("output_padding", 0)),
        groups=0 if groups == source.shape[1] > 1 else groups,
    )
    inputs = CountedAxis(source.shape[1], step.single(source, 1))
    return CountedLayer(geometry, inputs, CountedAxis(result[1], made))


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def transposed_convolution(step: Step) -> Flow:
    """Transposed convolution: the weight's first axis reads, the second makes."""
    source, weight = step.flow("input"), step.flow("weight")
    _note_lost(step, weight)
    _require_batch(source, weight)
    groups = int(step.arguments.get("groups", 1))
    inputs = step.single(source, 1)
    reads, makes = step.single(weight, 0), step.single(weight, 1)
    per_group = weight.shape[1]
    if groups == 1:
        step.join(inputs, reads)
        _consume(step, weight, reads)
        _produce(step, makes)
        made = makes
    elif per_group == 1 and weight.shape[0] == groups:
        made = step.join(inputs, reads)
    elif per_group == 1 and reads is not None and step.identities.are_alike(reads).all():
        # One kernel that the code repeats for every group: whole groups leave.
        made = _blocks_of(step, step.join(inputs, reads), groups)
    else:
        joined = step.join(inputs, reads)
        if joined is not None:
            rows = joined.reshape(groups, -1)
            step.identities.join(rows, rows[:1])
            _consume(step, weight, reads)
        _produce(step, makes)
        made = None if makes is None else np.tile(makes, groups)
    _join_bias(step, made)
    return _applied(step, weight, made, _batch_fields(step, source), source.shape)


def _blocks_of(step: Step, ids: Ids | None, groups: int) -> Ids | None:
    """Join each of equal blocks; return one identity for each."""
    if ids is None:
        return None
    rows = ids.reshape(groups, -1)
    step.identities.join(rows, rows[:, :1])
    return rows[:, 0]


def linear(step: Step) -> Flow:
    """The last axis is read by the weight's second axis and produced by its first."""
    source, weight = step.flow("input"), step.flow("weight")
    _note_lost(step, weight)
    last = len(source.shape) - 1
    reads = step.single(weight, 1)
    step.join(step.single(source, last), reads)
    _consume(step, weight, reads)
    makes = step.single(weight, 0)
    _produce(step, makes)
    _join_bias(step, makes)
    rest = tuple(found for found in source.fields if last not in found.axes)
    axes = (*_counted(source, *range(last)), *_counted(weight, 0, 1))
    layer = CountedLayer(
        Geometry("linear", math.prod(source.shape[:-1])),
        CountedAxis(source.shape[-1], reads),
        CountedAxis(weight.shape[0], makes),
    )
    step.count(1, axes, paddle=True, layer=layer)
    return step.result(*rest, *_field(last, makes))


def matrix_product(step: Step) -> Flow:
    """`matmul`, `bmm`, `mm`: batch axes are joined, the inner axis is read, outer ones pass."""
    names = [name for name, value in step.arguments.items() if isinstance(value, Flow)]
    left, right = step.flow(names[0]), step.flow(names[1])
    rank = max(len(left.shape), len(right.shape))
    batch = list(range(rank - 2))
    left_axes = [*batch[len(batch) - len(left.shape) + 2 :], -1, -3][-len(left.shape) :]
    right_axes = [*batch[len(batch) - len(right.shape) + 2 :], -3, -2][-len(right.shape) :]
    if len(left.shape) == 1:
        left_axes = [-3]
    if len(right.shape) == 1:
        right_axes = [-3]
    out = [axis for axis in (*batch, -1, -2) if axis in left_axes or axis in right_axes]
    return contract(step, [(left, left_axes), (right, right_axes)], out)


@dataclass(frozen=True, eq=False)
class _Use:
    """One operand's axis of a given name."""

    ids: Ids | None
    size: int
    parameter: bool


def contract(step: Step, operands: list[tuple[Flow, list[int]]], out: Sequence[int]) -> Flow:
    """Multiply and sum over named axes.

    Args:
        step: The operation.
        operands: Tensors with a name for each of their axes.
        out: The names of the result's axes; names that are missing here are summed over.
    """
    shared = set.intersection(*(set(axes) for _, axes in operands))
    makers, alone = _makers(operands, out), all(flow.parameter for flow, _ in operands)
    named: dict[int, list[_Use]] = {}
    for operand, (flow, axes) in enumerate(operands):
        singles = _one_axis_each(step, flow, axes, shared, out)
        for place, name in enumerate(axes):
            # What weights are summed over among themselves is no channel that a layer reads.
            by_weight = flow.parameter and flow.zeros and not alone
            use = _Use(singles.get(place), flow.shape[place], by_weight)
            named.setdefault(name, []).append(use)
            if makers.get(name) == operand:
                _produce(step, use.ids)
    ids_of = {name: _join_named(step, uses, name in out) for name, uses in named.items()}
    counted = tuple(
        CountedAxis(max(use.size for use in uses), ids_of[name]) for name, uses in named.items()
    )
    step.count(1, counted)
    fields = [found for place, name in enumerate(out) for found in _field(place, ids_of[name])]
    return step.result(*fields)


def _makers(operands: list[tuple[Flow, list[int]]], out: Sequence[int]) -> dict[int, int]:
    """Return which operand makes the channels of each name: a weight that meets activations.

    Of several weights with the name, the one with the most axes makes them and the others scale
    them. A product of weights alone is a weight itself: what uses it makes its channels.
    """
    found: dict[int, int] = {}
    if all(flow.parameter for flow, _ in operands):
        return found
    for name in out:
        having = [place for place, (_, axes) in enumerate(operands) if name in axes]
        if having and all(operands[place][0].parameter for place in having):
            found[name] = max(having, key=lambda place: (len(operands[place][1]), -place))
    return found


def _join_named(step: Step, uses: list[_Use], passes: bool) -> Ids | None:
    """Join the axes of one name; what does not pass is read here, by a weight if there is one."""
    wide = [use for use in uses if use.size > 1]
    joined = wide[0].ids if wide else None
    for use in wide[1:]:
        joined = step.join(joined, use.ids)
    if not passes:
        weights = [use for use in wide if use.parameter]
        for use in weights or wide:
            _read(step, use.ids, by_weight=use.parameter)
    return joined


def _one_axis_each(
    step: Step, flow: Flow, axes: list[int], shared: set[int], out: Sequence[int]
) -> dict[int, Ids]:
    """Confine every field to one axis: a batch axis if it has one, else one that passes."""

    def rank(axis: int) -> int:
        name = axes[axis]
        return (name in shared and name in out) * 2 + (name in out)

    singles: dict[int, Ids] = {}
    for found in flow.fields:
        keep = max(found.axes, key=rank)
        singles[keep] = step.identities.collapse(found, keep).ids
    return singles


def attention(step: Step) -> Flow:
    """Scaled dot-product attention: heads leave whole; softmax runs over positions."""
    query, key, value = (step.flow(name) for name in ("query", "key", "value"))
    if step.arguments.get("enable_gqa"):
        key, value = (_repeated_heads(flow, query.shape[-3]) for flow in (key, value))
    if not all(
        one.shape[axis] in (1, query.shape[axis])
        for one in (key, value)
        for axis in range(len(query.shape) - 2)
    ):
        raise ValueError("attention must have one key and value head per query head")
    rank = len(query.shape)
    batch = list(range(rank - 2))
    scores_shape = (*query.shape[:-1], key.shape[-2])
    inside = Step(step.op, step.where, step.arguments, (scores_shape,), step.ledger)
    pair = [(query, [*batch, -1, -3]), (key, [*batch, -4, -3])]
    scores = contract(inside, pair, [*batch, -1, -4])
    mask = step.arguments.get("attn_mask")
    if isinstance(mask, Flow):
        scores = Flow(scores_shape, tuple(join_broadcast(step, [scores, mask], scores_shape)))
    positions = scores.field_on(rank - 1)
    if positions is not None:
        step.mix(positions.ids)
    return contract(step, [(scores, [*batch, -1, -4]), (value, [*batch, -4, -2])], [*batch, -1, -2])


def _repeated_heads(flow: Flow, heads: int) -> Flow:
    """Return keys or values with one head per query head: several query heads share each."""
    axis = len(flow.shape) - 3
    times = heads // flow.shape[axis]
    fields = tuple(
        Field(found.axes, np.repeat(found.ids, times, found.axes.index(axis)))
        if axis in found.axes
        else found
        for found in flow.fields
    )
    return Flow((*flow.shape[:axis], heads, *flow.shape[axis + 1 :]), fields, flow.parameter)


def embedding(step: Step) -> Flow:
    """Rows of a table are looked up; its columns are made here."""
    weight = step.flow("weight")
    rows = step.single(weight, 0)
    _freeze(step, rows, "is looked up by index")
    makes = step.single(weight, 1)
    _produce(step, makes)
    return step.result(*_field(len(step.shapes[0]) - 1, makes))


def embedding_bag(step: Step) -> tuple[Flow, ...]:
    """Sums or means of looked up rows; the other results are positions."""
    made = embedding(step)
    return (made, *(Flow(shape) for shape in step.shapes[1:]))


def _join_bias(step: Step, made: Ids | None) -> None:
    bias = step.arguments.get("bias")
    if isinstance(bias, Flow):
        step.join(made, step.single(bias, 0))


def _counted(flow: Flow, *axes: int) -> list[CountedAxis]:
    """Return factors whose product is the number of positions along `axes`."""
    inside = [found for found in flow.fields if set(found.axes) <= set(axes)]
    covered = {axis for found in inside for axis in found.axes}
    fixed = math.prod(flow.shape[axis] for axis in axes if axis not in covered)
    factors = [CountedAxis(found.ids.size, found.ids.ravel()) for found in inside]
    return [CountedAxis(fixed), *factors]


def _field(axis: int, ids: Ids | None) -> tuple[Field, ...]:
    return () if ids is None else (Field((axis,), ids),)


def _freeze(step: Step, ids: Ids | None, why: str) -> None:
    if ids is not None:
        step.freeze(ids, why)


def _produce(step: Step, ids: Ids | None) -> None:
    if ids is not None:
        step.ledger.produced.append(ids)


def _consume(step: Step, weight: Flow, ids: Ids | None) -> None:
    _read(step, ids, by_weight=weight.parameter and weight.zeros)


def _read(step: Step, ids: Ids | None, *, by_weight: bool) -> None:
    """Note who reads `ids`: without a stored weight there is no place to zero what leaves."""
    if ids is None:
        return
    stored = ~step.identities.are_alike(ids) & by_weight
    if stored.any():
        step.ledger.consumed.append(ids[stored])
    if not stored.all():
        step.mix(ids[~stored])
