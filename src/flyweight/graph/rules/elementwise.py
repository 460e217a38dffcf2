"""Rules for operations that compute every position on its own."""

from collections.abc import Callable

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.rules.computed_weights import PRODUCTS
from flyweight.graph.step import Step, moved


def passes(step: Step) -> Flow:
    """The result has the channels of the first tensor: activations, casts, dropout."""
    flow = step.flows()[0]
    if flow.shape == step.shapes[0]:
        return step.result(*flow.fields)
    return elementwise(step)


def elementwise(step: Step) -> Flow:
    """Tensors are broadcast against each other; equal positions leave together."""
    return step.result(*join_broadcast(step, step.flows(), step.shapes[0]))


def creates(step: Step) -> Flow:
    """The result is made from sizes and numbers alone; its size is fixed."""
    return step.result()


def fills(step: Step) -> Flow:
    """One value everywhere: the code determines the size of every axis.

    What meets an axis of it leaves together with it; whether the code follows, a trial finds out.
    """
    shape = step.shapes[0]
    fresh = step.identities.fresh_alike
    fields = [Field((axis,), fresh(size)) for axis, size in enumerate(shape) if size > 1]
    return step.result(*fields)


def leaves(step: Step) -> Flow:
    """The values leave as Python numbers or as an array: where they go is not seen."""
    for found in step.flows()[0].fields:
        step.identities.freeze(found.ids, "leaves the model as Python numbers or as an array")
    return step.result()


def join_broadcast(step: Step, flows: list[Flow], shape: tuple[int, ...]) -> list[Field]:
    """Join `flows` position by position under broadcasting to `shape`.

    Returns:
        The fields of the result.
    """
    aligned = [_align(flow, len(shape)) for flow in flows]
    fields: list[Field] = []
    join = step.join_weights if _is_sum_of_weights(step, flows) else step.identities.join
    for cluster in _clusters(aligned):
        present = [flow for flow in aligned if any(flow.shape[axis] > 1 for axis in cluster)]
        whole = [flow.field_on(cluster[0]) for flow in present]
        if all(found is not None and found.axes == cluster for found in whole):
            for found in whole[1:]:
                join(whole[0].ids, found.ids)  # type: ignore[union-attr]
            fields.append(_stored_among(step, whole))  # type: ignore[arg-type]
        else:
            fields.extend(_join_on_one_axis(step, present, cluster, join))
    return fields


def _stored_among(step: Step, fields: list[Field]) -> Field:
    """Return the first of several equal fields that is more than a repeated value."""
    if len(fields) == 1:
        return fields[0]
    alike = step.identities.are_alike
    return next((found for found in fields if not alike(found.ids).any()), fields[0])


def _is_sum_of_weights(step: Step, flows: list[Flow]) -> bool:
    """Whether the result is zero only where several stored tensors are, or a certain one."""
    several = len(flows) > 1 and all(flow.parameter for flow in flows)
    return several and not (step.op in PRODUCTS and all(flow.zeros for flow in flows))


def _align(flow: Flow, rank: int) -> Flow:
    offset = rank - len(flow.shape)
    if offset == 0:
        return flow
    target = {axis: axis + offset for axis in range(len(flow.shape))}
    return Flow((1,) * offset + flow.shape, tuple(moved(found, target) for found in flow.fields))


def _clusters(flows: list[Flow]) -> list[tuple[int, ...]]:
    """Return the sets of axes that fields tie together."""
    clusters: list[set[int]] = []
    for flow in flows:
        for found in flow.fields:
            merged = set(found.axes)
            apart = [cluster for cluster in clusters if not cluster & merged]
            merged.update(*(cluster for cluster in clusters if cluster & merged))
            clusters = [*apart, merged]
    return [tuple(sorted(cluster)) for cluster in sorted(clusters, key=min)]


def _join_on_one_axis(
    step: Step, flows: list[Flow], cluster: tuple[int, ...], join: Callable[[Ids, Ids], None]
) -> list[Field]:
    """Join flows whose identities lie differently on `cluster`: one axis can stay free."""
    keep = _free_axis(flows, cluster)
    joined: Field | None = None
    for flow in flows:
        for found in [field for field in flow.fields if set(field.axes) <= set(cluster)]:
            if keep is None or keep not in found.axes:
                step.freeze(found.ids, "meets a tensor whose size is fixed")
                continue
            single = step.identities.collapse(found, keep)
            if joined is not None:
                join(joined.ids, single.ids)
            joined = joined or single
    return [joined] if joined is not None else []


def _free_axis(flows: list[Flow], cluster: tuple[int, ...]) -> int | None:
    def rank(axis: int) -> int:
        labelled = [flow.field_on(axis) is not None for flow in flows]
        fixed = any(
            flow.shape[axis] > 1 and not has for flow, has in zip(flows, labelled, strict=True)
        )
        return -1 if fixed else sum(labelled)

    best = max(cluster, key=rank)
    return best if rank(best) > 0 else None
