"""Rules for operations that rearrange, cut or glue tensors."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.rules.elementwise import join_broadcast
from flyweight.graph.rules.orders import looked_up
from flyweight.graph.step import Shape, Step, drop_constant_axes, moved


def reshape(step: Step) -> Flow:
    """View, reshape, flatten, unflatten: identities are distributed again in row-major order."""
    source, shape = step.flows()[0], step.shapes[0]
    return step.result(*reshaped_fields(step, source, shape))


def reshaped_fields(step: Step, source: Flow, shape: Shape) -> list[Field]:
    """Return the fields of `source` seen under `shape`."""
    segments = _segments(source.shape, shape)
    alike = step.identities.are_alike
    # What the code repeats has no channels of its own: where two fields meet, the others stay.
    ordered = sorted(source.fields, key=lambda found: bool(alike(found.ids).all()))
    repeated = {axis for found in ordered if alike(found.ids).all() for axis in found.axes}
    fields: list[Field] = []
    taken: set[Segment] = set()
    for found in ordered:
        confined, touched = _confined(step, found, segments, repeated)
        if not touched:
            continue
        if taken.intersection(touched):
            step.freeze(confined.ids, "is flattened together with other channels")
            continue
        taken.update(touched)
        before, after = (sum(axes, ()) for axes in zip(*touched, strict=True))
        spread = _spread(confined, before, source.shape)
        kept = drop_constant_axes(Field(after, spread.reshape([shape[axis] for axis in after])))
        if kept is not None:
            if len(kept.axes) > 1 and len(before) + len(after) > 2 * len(touched):
                step.identities.box(kept.ids)
            fields.append(kept)
    return fields


Segment = tuple[tuple[int, ...], tuple[int, ...]]


def _segments(before: Shape, after: Shape) -> list[Segment]:
    """Cut two shapes of equal product into the shortest runs of equal product, without ones."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    segments, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        first_i, first_j = i, j
        product_left, product_right = before[left[i]], after[right[j]]
        while product_left != product_right:
            if product_left < product_right:
                i += 1
                product_left *= before[left[i]]
            else:
                j += 1
                product_right *= after[right[j]]
        i, j = i + 1, j + 1
        segments.append((tuple(left[first_i:i]), tuple(right[first_j:j])))
    return segments


def _confined(
    step: Step, found: Field, segments: Sequence[Segment], repeated: Collection[int]
) -> tuple[Field, list[Segment]]:
    """Return `found` confined to segments that can become narrower, and these segments.

    What lies outside of them is joined away. A segment that has axes without channels too (rows of
    an image beside rows of a block, in a pixel shuffle) cannot become narrower, except for the
    batch and for what the code repeats. If there are only such segments, one of them is taken.
    """
    touched = [one for one in segments if set(found.axes) & set(one[0])]
    if len(touched) <= 1 or all(len(before) == len(after) == 1 for before, after in touched):
        return found, touched
    own = {*found.axes, *repeated, 0}
    wanted = [one for one in touched if own.issuperset(one[0])]
    if not wanted:
        wanted = [next((one for one in touched if len(one[0]) + len(one[1]) > 2), touched[0])]
    inside = {axis for before, _ in wanted for axis in before}
    return step.identities.collapse(found, *(a for a in found.axes if a in inside)), wanted


def _spread(found: Field, axes: tuple[int, ...], shape: Shape) -> Ids:
    """Return the identities of `found` at every position of `axes`."""
    sizes = [shape[axis] if axis in found.axes else 1 for axis in axes]
    return np.broadcast_to(found.ids.reshape(sizes), [shape[axis] for axis in axes])


def permute(step: Step) -> Flow:
    """Axes change places."""
    source = step.flows()[0]
    rank = len(source.shape)
    arguments = step.arguments
    if step.op in {"t", "numpy_T", "mT", "adjoint"}:
        order = [*range(rank - 2), *reversed(range(max(rank - 2, 0), rank))]
    elif "dims" in arguments:
        order = [axis % rank for axis in arguments["dims"]]
    elif "source" in arguments:
        order = _moveaxis_order(arguments["source"], arguments["destination"], rank)
    else:
        first, second = _two_axes(arguments, rank)
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
    target = {axis: place for place, axis in enumerate(order)}
    return step.result(*(moved(found, target) for found in source.fields))


def _two_axes(arguments: dict[str, object], rank: int) -> tuple[int, int]:
    names = ("dim0", "dim1") if "dim0" in arguments else ("axis0", "axis1")
    first, second = (int(arguments[name]) % rank for name in names)  # type: ignore[call-overload]
    return first, second


def _moveaxis_order(source: object, destination: object, rank: int) -> list[int]:
    sources = [source] if isinstance(source, int) else list(source)  # type: ignore[call-overload]
    targets = [destination] if isinstance(destination, int) else list(destination)  # type: ignore[call-overload]
    placed = {to % rank: of % rank for of, to in zip(sources, targets, strict=True)}
    rest = iter(axis for axis in range(rank) if axis not in placed.values())
    return [placed[place] if place in placed else next(rest) for place in range(rank)]


def concatenate(step: Step) -> Flow:
    """Identities are appended along one axis and joined along the others."""
    flows = [flow for flow in step.arguments["tensors"] if math.prod(flow.shape) > 0]
    shape = step.shapes[0]
    axis = int(step.arguments.get("dim", 0)) % len(shape)
    parts = [step.single(flow, axis) for flow in flows]
    others = [Flow(_with(flow.shape, axis, 1), _without(flow, axis)) for flow in flows]
    fields = join_broadcast(step, others, _with(shape, axis, 1))
    if len(flows) > 1 and flows[0].shape[axis] == 1 and all(flow is flows[0] for flow in flows):
        return step.result(*fields, Field((axis,), step.identities.fresh_alike(len(flows))))
    if all(part is None for part in parts):
        return step.result(*fields)
    ids = [
        part if part is not None else _fixed_part(step, flow.shape[axis])
        for part, flow in zip(parts, flows, strict=True)
    ]
    return step.result(*fields, Field((axis,), np.concatenate(ids)))


def _fixed_part(step: Step, size: int) -> Ids:
    ids = step.identities.fresh(size)
    step.freeze(ids, "is a part of fixed size")
    return ids


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _without(flow: Flow, axis: int) -> tuple[Field, ...]:
    return tuple(found for found in flow.fields if axis not in found.axes)


def stack(step: Step) -> Flow:
    """A new axis of fixed size; equal positions of the parts leave together."""
    flows = step.arguments["tensors"]
    shape = step.shapes[0]
    axis = int(step.arguments.get("dim", 0)) % len(shape)
    fields = join_broadcast(step, list(flows), flows[0].shape)
    target = {old: old + (old >= axis) for old in range(len(flows[0].shape))}
    return step.result(*(moved(found, target) for found in fields))


def chunk(step: Step) -> tuple[Flow, ...]:
    """Parts of one axis. Of equal parts, the same places leave every part.

    Whether the code that sizes the parts follows is found out in a trial.
    """
    source = step.flow("self")
    axis = int(step.arguments.get("dim", 0)) % len(source.shape)
    rest = _without(source, axis)
    ids = step.single(source, axis)
    if ids is None:
        return tuple(step.result(*rest, index=i) for i in range(len(step.shapes)))
    sizes = [shape[axis] for shape in step.shapes]
    if max(sizes) == 1:
        step.freeze(ids, "is split into single channels")
        return tuple(step.result(*rest, index=i) for i in range(len(step.shapes)))
    parts = np.split(ids, np.cumsum(sizes)[:-1])
    if len(set(sizes)) == 1:
        for part in parts[1:]:
            step.identities.join(parts[0], part)
    elif step.op == "chunk":
        step.freeze(ids, "is cut into chunks of different sizes")
    else:
        for part in parts:
            step.part(part)
    return tuple(step.result(*rest, Field((axis,), part), index=i) for i, part in enumerate(parts))


def slice_axis(step: Step) -> Flow:
    """A window of one axis. Whether its bounds follow a cut is found out in a trial."""
    source = step.flow("self")
    axis = int(step.arguments.get("dim", 0)) % len(source.shape)
    start, end, stride = (step.arguments.get(name) for name in ("start", "end", "step"))
    rest = _without(source, axis)
    ids = step.single(source, axis)
    if ids is None:
        return step.result(*rest)
    cut = ids[slice(start, end, stride)]
    if (stride or 1) != 1 or len(cut) <= 1 < len(ids):
        step.freeze(ids, "is read at positions that stand in the model's code")
    for bound in slice(start, end).indices(len(ids))[:2]:
        if 0 < bound < len(ids):
            step.part(ids[:bound])
    return step.result(*rest, *((Field((axis,), cut),) if len(cut) > 1 else ()))


def select(step: Step) -> Flow:
    """One position of one axis."""
    source = step.flow("self")
    axis = int(step.arguments["dim"]) % len(source.shape)
    return step.result(*_without_axis(step, source, axis))


def unbind(step: Step) -> tuple[Flow, ...]:
    """Every position of one axis as a tensor of its own."""
    source = step.flow("self")
    axis = int(step.arguments.get("dim", 0)) % len(source.shape)
    fields = _without_axis(step, source, axis)
    return tuple(step.result(*fields, index=i) for i in range(len(step.shapes)))


def _without_axis(step: Step, source: Flow, axis: int) -> list[Field]:
    """Return the fields once `axis` is taken apart position by position."""
    target = {old: old - (old > axis) for old in range(len(source.shape)) if old != axis}
    fields = []
    for found in source.fields:
        if axis not in found.axes:
            fields.append(moved(found, target))
        elif found.axes == (axis,):
            step.freeze(found.ids, "is read at positions that stand in the model's code")
        else:
            # The axis keeps its size, so what stays of the others is the same all along it.
            place = found.axes.index(axis)
            first = found.ids.take([0], place)
            step.identities.join(first, found.ids)
            rest = Field(tuple(a for a in found.axes if a != axis), first.squeeze(place))
            fields.append(moved(rest, target))
    return fields


def index(step: Step) -> Flow:
    """Positions of some axes are looked up by index tensors; the other axes pass."""
    source, rank = step.flow("self"), len(step.shapes[0])
    named = {axis: by for axis, by in enumerate(step.arguments["indices"]) if isinstance(by, Flow)}
    target = _passing_axes(source, list(named), rank)
    fields = [moved(found, target) for found in source.fields if set(found.axes) <= set(target)]
    # Index tensors are broadcast against each other; their axes lie side by side in the result.
    block = [axis for axis in range(rank) if axis not in target.values()]
    for axis, by in named.items():
        ids = step.single(source, axis)
        found = None if ids is None else looked_up(step, ids, by)
        if found is not None:
            before = len(block) - len(by.shape)
            placed = Field(tuple(block[before + one] for one in found.axes), found.ids)
            if any(set(placed.axes) & set(other.axes) for other in fields):
                step.freeze(placed.ids, "is looked up by index")
            else:
                fields.append(placed)
    return step.result(*fields)


def index_put(step: Step) -> Flow:
    """Values are written at positions of some axes; along the others they are joined."""
    source, values = step.flow("self"), step.flow("values")
    indices = [by for by in step.arguments["indices"] if isinstance(by, Flow)]
    rank = max(len(by.shape) for by in indices)
    looked_up = [axis for axis, by in enumerate(step.arguments["indices"]) if isinstance(by, Flow)]
    for axis in looked_up:
        ids = step.single(source, axis)
        if ids is not None:
            step.freeze(ids, "is looked up by index")
    target = _passing_axes(source, looked_up, len(source.shape) - len(indices) + rank)
    offset = len(source.shape) - len(indices) + rank - len(values.shape)
    fields = []
    for axis, place in target.items():
        ids, there = step.single(source, axis), place - offset
        if there >= 0 and values.shape[there] > 1:
            ids = step.join(ids, step.single(values, there))
        fields.extend([] if ids is None else [Field((axis,), ids)])
    return step.result(*fields)


def _passing_axes(source: Flow, looked_up: list[int], rank: int) -> dict[int, int]:
    """Return where the axes that are not looked up lie in a result of `rank`."""
    together = looked_up == list(range(looked_up[0], looked_up[-1] + 1))
    block = rank - len(source.shape) + len(looked_up)
    first = looked_up[0] if together else 0
    rest = [axis for axis in range(len(source.shape)) if axis not in looked_up]
    return {axis: place + (block if place >= first else 0) for place, axis in enumerate(rest)}


def index_select(step: Step) -> Flow:
    """Positions of one axis are looked up; the other axes pass."""
    source = step.flow("self")
    axis = int(step.arguments["dim"]) % len(source.shape)
    ids = step.single(source, axis)
    found = None if ids is None else looked_up(step, ids, step.flow("index"))
    fields = _without(source, axis)
    return step.result(*fields, *(() if found is None else (Field((axis,), found.ids),)))


def flip(step: Step) -> Flow:
    """One or more axes backwards."""
    source = step.flow("self")
    flipped = {axis % len(source.shape) for axis in step.arguments["dims"]}
    fields = []
    for found in source.fields:
        places = tuple(place for place, axis in enumerate(found.axes) if axis in flipped)
        fields.append(Field(found.axes, np.flip(found.ids, places)))
    return step.result(*fields)


def roll(step: Step) -> Flow:
    """A rotated axis. The code fixes the rotation, so channels that cross the edge are kept."""
    source = step.flow("self")
    shifts, axes = list(step.arguments["shifts"]), list(step.arguments.get("dims", ()))
    if not axes:
        return _freeze_all(step, source, "is rolled as one flat row")
    turns = {axis % len(source.shape): shift for axis, shift in zip(axes, shifts, strict=True)}
    fields = []
    for found in source.fields:
        if not set(found.axes) & set(turns):
            fields.append(found)
            continue
        axis = next(axis for axis in found.axes if axis in turns)
        ids = step.single(source, axis)
        if ids is not None:
            if abs(turns[axis]) >= len(ids):
                step.freeze(ids, "is rolled all the way round")
            shift = turns[axis] % len(ids)
            crossing = ids[len(ids) - shift :] if turns[axis] >= 0 else ids[: len(ids) - shift]
            step.freeze(crossing, "crosses the edge of a roll")
            fields.append(Field((axis,), np.roll(ids, shift)))
    return step.result(*fields)


def _freeze_all(step: Step, source: Flow, why: str) -> Flow:
    for found in source.fields:
        step.freeze(found.ids, why)
    return step.result()


def expand(step: Step) -> Flow:
    """Axes of size one are repeated without a copy, as often as the code asks for."""
    source, shape = step.flows()[0], step.shapes[0]
    offset = len(shape) - len(source.shape)
    target = {axis: axis + offset for axis in range(len(source.shape))}
    fields = [moved(found, target) for found in source.fields]
    return step.result(*fields, *_repeated(step, source, shape))


def _repeated(step: Step, source: Flow, shape: Shape) -> list[Field]:
    """Return fields for the axes of `shape` that have size one in `source` or are not in it."""
    offset = len(shape) - len(source.shape)
    return [
        Field((axis,), step.identities.fresh_alike(size))
        for axis, size in enumerate(shape)
        if size > 1 and (axis < offset or source.shape[axis - offset] == 1)
    ]


def repeat(step: Step) -> Flow:
    """Whole axes are repeated end to end.

    A small stored tensor that is repeated at least as often as it is long (one kernel per channel,
    four wavelets per channel) can be repeated less often; of other tensors, the same places leave
    every repetition.
    """
    source, shape = step.flow("self"), step.shapes[0]
    offset = len(shape) - len(source.shape)
    fields = []
    for found in source.fields:
        axes = tuple(axis + offset for axis in found.axes)
        times = [shape[new] // source.shape[old] for new, old in zip(axes, found.axes, strict=True)]
        if source.parameter and len(axes) == 1 and times[0] >= len(found.ids):
            step.freeze(found.ids, "is repeated whole")
            blocks = np.repeat(step.identities.fresh_alike(times[0]), len(found.ids))
            fields.append(Field(axes, blocks))
        else:
            fields.append(Field(axes, np.tile(found.ids, times)))
    return step.result(*fields, *_repeated(step, source, shape))


def pad(step: Step) -> Flow:
    """Positions are added at the edges; added channels are constant and stay."""
    source, shape = step.flows()[0], step.shapes[0]
    amounts = list(step.arguments["pad"])
    fields = []
    for found in source.fields:
        padded = [axis for axis in found.axes if shape[axis] != source.shape[axis]]
        if not padded:
            fields.append(found)
            continue
        axis = padded[0]
        ids = step.single(source, axis)
        place = 2 * (len(shape) - 1 - axis)
        before, after = amounts[place], amounts[place + 1]
        if (
            ids is None
            or before < 0
            or after < 0
            or step.arguments.get("mode", "constant") != "constant"
        ):
            _freeze_all(step, Flow(source.shape, (found,)), "is padded from its own values")
            continue
        edges = [_fixed_part(step, max(size, 0)) for size in (before, after)]
        fields.append(Field((axis,), np.concatenate([edges[0], ids, edges[1]])))
    return step.result(*fields)
