"""Rules for operations that take the last two axes, or any two, as a matrix."""

from flyweight.graph.identity import Field, Flow
from flyweight.graph.rules.elementwise import join_broadcast
from flyweight.graph.step import Step, moved


def decomposed(step: Step) -> tuple[Flow, ...]:
    """Inverses, decompositions and functions of matrices; the axes before the last two pass."""
    flows = [flow for flow in step.flows() if len(flow.shape) >= 2]
    batches = []
    for flow in flows:
        first = len(flow.shape) - 2
        for found in flow.fields:
            if max(found.axes) >= first:
                step.freeze(found.ids, "is part of a matrix that is decomposed")
        passing = tuple(found for found in flow.fields if max(found.axes) < first)
        batches.append(Flow(flow.shape[:first], passing))
    shape = max((flow.shape for flow in batches), key=len)
    fields = tuple(join_broadcast(step, batches, shape))
    return tuple(Flow(made, fields if made[: len(shape)] == shape else ()) for made in step.shapes)


def triangle(step: Step) -> Flow:
    """Half of each matrix is set to zero; the axes before the last two pass."""
    source = step.flow("self")
    first = len(source.shape) - 2
    for found in source.fields:
        if max(found.axes) >= first:
            step.freeze(found.ids, "is part of a matrix of which one half is kept")
    return step.result(*(found for found in source.fields if max(found.axes) < first))


def diagonal(step: Step) -> Flow:
    """The diagonal of two axes is the last axis of the result; the others pass."""
    source = step.flow("self")
    rank = len(source.shape)
    matrix = {int(step.arguments[name]) % rank for name in ("dim1", "dim2")}
    rest = [axis for axis in range(rank) if axis not in matrix]
    target = {axis: place for place, axis in enumerate(rest)}
    fields = []
    for found in source.fields:
        if matrix & set(found.axes):
            step.freeze(found.ids, "is part of a matrix of which the diagonal is taken")
        else:
            fields.append(moved(found, target))
    return step.result(*fields)


def embedded_diagonal(step: Step) -> Flow:
    """The last axis becomes the diagonal of two; the others pass."""
    source, rank = step.flow("self"), len(step.shapes[0])
    last = len(source.shape) - 1
    matrix = {
        int(step.arguments.get(name, axis)) % rank for name, axis in (("dim1", -2), ("dim2", -1))
    }
    rest = [axis for axis in range(rank) if axis not in matrix]
    fields = []
    for found in source.fields:
        if last in found.axes:
            step.freeze(found.ids, "becomes the diagonal of a matrix")
        else:
            fields.append(moved(found, dict(enumerate(rest))))
    return step.result(*fields)


def distances(step: Step) -> Flow:
    """Distances of all vectors of one tensor to all of another (`cdist`): summed over channels."""
    left, right = step.flow("x1"), step.flow("x2")
    last = len(step.shapes[0]) - 1
    inner = [step.single(flow, len(flow.shape) - 1) for flow in (left, right)]
    for ids in inner:
        if ids is not None:
            step.mix(ids)
    step.join(*inner)
    batches, fields = [], []
    for flow, place in ((left, last - 1), (right, last)):
        first = len(flow.shape) - 2
        vectors = step.single(flow, first)
        if vectors is not None:
            fields.append(Field((place,), vectors))
        passing = tuple(found for found in flow.fields if max(found.axes) < first)
        batches.append(Flow(flow.shape[:first], passing))
    return step.result(*join_broadcast(step, batches, step.shapes[0][: last - 1]), *fields)
