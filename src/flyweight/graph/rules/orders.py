"""Positions as values: stored permutations of channels, and positions that the code counts out.

`x[:, torch.arange(n)]` and `x[:, torch.arange(n).view(2, -1).t().flatten()]` take channels in an
order that is made of nothing but their number. Such an index tensor is followed like channels: its
identities leave together with the channels that they name, and what rearranges it rearranges those.
"""

from dataclasses import replace

import numpy as np

from flyweight.graph.identity import Field, Flow, Ids
from flyweight.graph.step import Step

LOOKUPS = frozenset(("index", "_unsafe_index", "index_select", "gather"))
"""Operations that look positions up."""
_REARRANGES = """
    view reshape flatten unflatten _unsafe_view view_as reshape_as ravel squeeze unsqueeze permute
    transpose t numpy_T mT movedim moveaxis swapaxes swapdims expand expand_as broadcast_to flip
    slice split split_with_sizes chunk alias clone contiguous detach to _to_copy type_as
    lift_fresh_copy
"""
_COMPUTED = "holds an order that is also computed with"


def without_computed(step: Step) -> Step:
    """Return an operation as its rule sees it.

    Positions that an operation computes with are no order of channels any more: what the code
    counted is of fixed size there, and a stored permutation is frozen.
    """
    if step.op in LOOKUPS:
        return step
    stored = [flow for flow in step.flows() if flow.order is not None]
    for flow in stored:
        step.freeze(flow.fields[0].ids, _COMPUTED)
    if step.op in _REARRANGES.split() or not any(flow.counted for flow in step.flows()):
        return step
    return replace(step, arguments={key: _plain(step, one) for key, one in step.arguments.items()})


def _plain(step: Step, argument: object) -> object:
    if isinstance(argument, Flow) and argument.counted:
        repeated = []
        for found in argument.fields:
            if step.identities.positions_of(found.ids) is None:
                repeated.append(found)
            else:
                step.freeze(found.ids, _COMPUTED)
        return Flow(argument.shape, tuple(repeated))
    if isinstance(argument, (list, tuple)):
        return [_plain(step, item) for item in argument]
    return argument


def with_positions(step: Step, results: tuple[Flow, ...]) -> tuple[Flow, ...]:
    """Return the results of an operation as positions that the code counted, if they are such.

    Whole numbers from zero up, or down to zero, are counted out: each gets the identity of the
    position that it names. What only rearranges them leaves them positions.
    """
    if step.op == "arange":
        return (_counted(step, results[0]),)
    if step.op in _REARRANGES.split() and step.flows() and step.flows()[0].counted:
        return tuple(replace(flow, counted=True) for flow in results)
    return results


def _counted(step: Step, result: Flow) -> Flow:
    size = result.shape[0]
    start, stride = step.arguments.get("start", 0), step.arguments.get("step", 1)
    rising, falling = (start, stride) == (0, 1), (start, stride) == (size - 1, -1)
    if size < 2 or not (rising or falling):
        return result
    ids = step.identities.fresh_counted(size)
    return replace(result, fields=(Field((0,), ids if rising else ids[::-1]),), counted=True)


def looked_up(step: Step, ids: Ids, by: Flow) -> Field | None:
    """Return what looking positions of `ids` up gives, on the axes of `by`.

    None, and `ids` are frozen, where the values of `by` are not known.
    """
    if by.order is not None and by.order.shape == ids.shape:
        found: Ids = ids[by.order]
        step.identities.join(found, by.fields[0].ids)
        step.ledger.orders.append(by.fields[0].ids)
        return Field((0,), found)
    if by.counted:
        for field in by.fields:
            places = step.identities.positions_of(field.ids)
            if places is not None and int(places.max()) < len(ids):
                _join_counted(step, ids, field.ids)
                return Field(field.axes, ids[places])
    step.freeze(ids, "is looked up by index")
    return None


def _join_counted(step: Step, ids: Ids, by: Ids) -> None:
    """Join channels with the positions that name them; where all were counted, with all."""
    places = step.identities.positions_of(by)
    if places is None:
        raise ValueError("only counted positions name channels")
    step.identities.join(ids[places], by)
    first = int((by - places).flat[0])
    if (first, first + len(ids)) in step.identities.counted:
        step.identities.join(ids, np.arange(first, first + len(ids)))
