"""Groups of a graph, their names and costs, made from joined channel identities."""

import hashlib
import itertools
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.graph.cost import AxisSize, CostModel, Layer, OpCost, TensorCost
from flyweight.graph.example_inputs import Example
from flyweight.graph.groups import ChannelGroup, Member, Role, span_of
from flyweight.graph.identity import Ids
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.sizes import AxisSizes, Labels
from flyweight.graph.step import CountedAxis, CountedLayer, Ledger


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of one parameter or buffer."""

    tensor: str
    axis: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class _Draft:
    """A draft group: channels that touch the same tensor axes, before the group has a name.

    A component is one channel: all identities that were joined, so that they can only be removed
    together. Channels are gathered to a group because a user chooses a share of a layer's width,
    not single channels, and because a plan stores the places of a whole group as one stride.

    Attributes:
        components: Its channels, in the order of the leading slot.
        slots: The slots that they touch, in order of execution.
        leading: The slot that gives the group its name.
    """

    components: Labels
    slots: tuple[int, ...]
    leading: int


def build_graph(
    ledger: Ledger,
    slots: list[Slot],
    tensors: Mapping[str, Tensor],
    saved: frozenset[str],
    example: Example,
) -> tuple[ModelGraph, AxisSizes]:
    """Make the graph of what a trace recorded.

    Returns:
        The graph, and the sizes of axes as functions of the channels that stay.

    Args:
        ledger: Joins, frozen and mixed identities, counted operations.
        slots: The axes of the stored tensors.
        tensors: Stored tensors by name.
        saved: Names of those that are parameters or buffers; plain attributes cost nothing.
        example: Shape and type of every example input.
    """
    labels = ledger.identities.components()
    order = _execution_order(ledger, slots)
    rescaled, mixing = ledger.norms.settled(labels)
    facts = _Facts(ledger, labels, mixing)
    drafts = _draft_groups(labels, slots, order, facts)
    places = _Places(drafts, labels)
    groups = _name_groups(drafts, places, slots, facts)
    sizes = AxisSizes(labels, places.owner, list(groups))
    graph = ModelGraph(
        groups=groups,
        costs=_cost_model(ledger, slots, tensors, saved, sizes),
        tensors=dict(tensors),
        inputs=example.args,
        keywords=example.kwargs,
        fingerprint=_fingerprint(groups, tensors),
        rescaled=rescaled,
    )
    return graph, sizes


class _Facts:
    """Frozen, mixed and producing components."""

    def __init__(self, ledger: Ledger, labels: Labels, mixing: list[tuple[Ids, str]]) -> None:
        count = int(labels.max()) + 1 if len(labels) else 0
        self.reason: dict[int, str] = {}
        for ids, reason in ledger.identities.frozen:
            for component in np.unique(labels[ids]).tolist():
                self.reason.setdefault(component, reason)
        self.mixes: dict[int, list[str]] = {}
        for ids, operation in [*ledger.identities.mixed, *mixing]:
            for component in np.unique(labels[ids]).tolist():
                known = self.mixes.setdefault(component, [])
                if operation not in known:
                    known.append(operation)
        self.produces = np.zeros(count, dtype=bool)
        for ids in ledger.produced:
            self.produces[labels[ids]] = True
        for ids in ledger.lost:
            # A layer whose weight is computed in a way that is not followed is listed with the
            # reason.
            found = [one for one in np.unique(labels[ids]).tolist() if one in self.reason]
            self.produces[found] = True
        self.made = _spread(_id_mask(len(labels), ledger.produced), ledger.summed)
        self.read = _spread(_id_mask(len(labels), ledger.consumed), ledger.summed)
        self.orders = _id_mask(len(labels), ledger.orders)
        self.parts = ledger.parts


def _id_mask(count: int, found: list[Ids]) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=bool)
    for ids in found:
        mask[ids] = True
    return mask


def _spread(mask: NDArray[np.bool_], summed: list[tuple[Ids, Ids]]) -> NDArray[np.bool_]:
    """Let hold for every term of a sum of weights what holds for one, in place."""
    for left, right in [*reversed(summed), *summed]:
        mask[left] |= mask[right]
        mask[right] |= mask[left]
    return mask


def _execution_order(ledger: Ledger, slots: list[Slot]) -> list[int]:
    """Return the slots in the order in which the network uses them: by their first producer."""
    first_use: dict[int, int] = {}
    for place, ids in enumerate(ledger.produced):
        first_use.setdefault(int(ids[0]), place)
    last = len(ledger.produced)
    keys = [(first_use.get(int(slot.ids[0]), last), index) for index, slot in enumerate(slots)]
    return [index for _, index in sorted(keys)]


def _draft_groups(
    labels: Labels, slots: list[Slot], order: list[int], facts: _Facts
) -> list[_Draft]:
    """Gather components to groups.

    Two channels belong to one group if they touch the same slots equally often, and if the same
    reason and the same mixing operations hold for both. Parts of an axis that code counts apart
    (`ledger.parts`) count as slots of their own: a split at a number in the code makes two groups
    of one layer, of which each can keep its own share.
    """
    rank = np.empty(len(slots), dtype=np.int64)
    rank[order] = np.arange(len(slots))
    touching = [*(slot.ids for slot in slots), *facts.parts]
    ranks = [*rank.tolist(), *range(len(slots), len(touching))]
    component = np.concatenate([labels[:0], *(labels[ids] for ids in touching)])
    place = np.repeat(np.array(ranks, dtype=np.int64), [len(ids) for ids in touching])
    # Only channels that a layer produces can be removed. The others are the channels of inputs,
    # and axes of stored tensors that no operation uses as channels.
    wanted = facts.produces[component]
    component, place = component[wanted], place[wanted]
    # Sorted by component, the places of each component are one run of the array: its key. A loop
    # over channels in Python would take seconds for a wide network.
    by_component = np.lexsort((place, component))
    component, place = component[by_component], place[by_component]
    if not len(component):
        return []
    starts = np.flatnonzero(np.r_[True, component[1:] != component[:-1]]).tolist()
    gathered: dict[tuple[bytes, str | None, tuple[str, ...]], list[int]] = {}
    for start, end in zip(starts, [*starts[1:], len(component)], strict=True):
        found, touched = int(component[start]), place[start:end].tobytes()
        key = (touched, facts.reason.get(found), tuple(facts.mixes.get(found, ())))
        gathered.setdefault(key, []).append(found)
    drafts = []
    for (touched, _, _), components in gathered.items():
        places = np.unique(np.frombuffer(touched, np.int64)).tolist()
        found_slots = [order[i] for i in places if i < len(slots)]
        # The first layer that produces the channels names the group: users know it best.
        made = [i for i in found_slots if facts.made[slots[i].ids].any()]
        leading = (made or found_slots)[0]
        ordered = _in_order(np.array(components), labels[slots[leading].ids])
        drafts.append(_Draft(ordered, tuple(found_slots), leading))
    return sorted(drafts, key=lambda draft: rank[draft.slots[0]])


def _in_order(components: Labels, along: Labels) -> Labels:
    """Sort components by their first position on the leading axis."""
    found, first = np.unique(along, return_index=True)
    return components[np.argsort(first[np.searchsorted(found, components)])]


class _Places:
    """Which group every component belongs to (-1 for none), and which of its channels it is."""

    def __init__(self, drafts: list[_Draft], labels: Labels) -> None:
        self.labels = labels
        count = int(labels.max()) + 1 if len(labels) else 0
        self.owner = np.full(count, -1)
        self.channel = np.full(count, -1)
        for index, draft in enumerate(drafts):
            self.owner[draft.components] = index
            self.channel[draft.components] = np.arange(len(draft.components))

    def of(self, slot: Slot) -> dict[int, Labels]:
        """Return, per group on this slot, the positions of its channels, channel by channel."""
        components = self.labels[slot.ids]
        owner, channel = self.owner[components], self.channel[components]
        ordered = np.lexsort((channel, owner))
        starts = np.flatnonzero(np.diff(owner[ordered], prepend=-2)).tolist()
        ends = [*starts[1:], len(ordered)]
        return {
            int(owner[ordered[start]]): ordered[start:end]
            for start, end in zip(starts, ends, strict=True)
        }


def _name_groups(
    drafts: list[_Draft], places: _Places, slots: list[Slot], facts: _Facts
) -> dict[str, ChannelGroup]:
    groups: dict[str, ChannelGroup] = {}
    touched = {i for draft in drafts for i in draft.slots}
    positions = {i: places.of(slots[i]) for i in touched}
    for index, draft in enumerate(drafts):
        size = len(draft.components)
        members = tuple(
            member
            for i in draft.slots
            for member in _members(slots[i], positions[i][index].reshape(size, -1), facts)
        )
        first = int(positions[draft.leading][index][0])
        name = _free_name(slots[draft.leading], first, groups)
        component = int(draft.components[0])
        groups[name] = ChannelGroup(
            name=name,
            size=size,
            members=members,
            reason=facts.reason.get(component),
            mixes=tuple(facts.mixes.get(component, ())),
        )
    return groups


def _free_name(leading: Slot, first: int, taken: Container[str]) -> str:
    """Return the name of a group: its leading tensor, with a place where the tensor has several.

    Args:
        leading: The slot that names the group.
        first: Position of the group's first channel on it.
        taken: Names of earlier groups.
    """
    tensor = leading.tensor
    names = (tensor, f"{tensor}[{first}:]", f"{tensor}[axis{leading.axis}][{first}:]")
    numbered = (f"{tensor}[axis{leading.axis}][{first}:]#{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain(names, numbered) if name not in taken)


def _members(slot: Slot, positions: Labels, facts: _Facts) -> Iterator[Member]:
    """Yield what a group does on a slot; tied weights make channels in one place and read them."""
    ids, span = slot.ids[positions], span_of(positions)
    made, read = facts.made[ids].any(), facts.read[ids].any()
    if made:
        yield Member(slot.tensor, slot.axis, "produces", span)
    if read:
        yield Member(slot.tensor, slot.axis, "consumes", span)
    if not made and not read:
        role: Role = "orders" if facts.orders[ids].any() else "follows"
        yield Member(slot.tensor, slot.axis, role, span)


def _cost_model(
    ledger: Ledger,
    slots: list[Slot],
    tensors: Mapping[str, Tensor],
    saved: frozenset[str],
    sizes: AxisSizes,
) -> CostModel:
    def axis_size(axis: CountedAxis) -> AxisSize:
        return sizes.of(axis.ids, axis.size)

    def layer_of(found: CountedLayer | None) -> Layer | None:
        if found is None:
            return None
        return Layer(found.geometry, axis_size(found.inputs), axis_size(found.outputs))

    ops = tuple(
        OpCost(
            op.where,
            op.op,
            op.positions,
            tuple(map(axis_size, op.axes)),
            op.paddle,
            layer_of(op.layer),
        )
        for op in ledger.counted
    )
    ids_of = {(slot.tensor, slot.axis): slot.ids for slot in slots}
    priced = tuple(
        TensorCost(
            name,
            tuple(
                sizes.of(ids_of.get((name, axis)), size) for axis, size in enumerate(tensor.shape)
            ),
            tensor.element_size(),
            learnable=isinstance(tensor, nn.Parameter),
            floating=tensor.is_floating_point(),
        )
        for name, tensor in tensors.items()
        if name in saved and not name.endswith("num_batches_tracked")
    )
    return CostModel(ops, priced, dict(ledger.uncounted))


def _fingerprint(groups: Mapping[str, ChannelGroup], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of structure alone: the same at any input size and torch version."""
    facts = {
        "tensors": sorted((name, list(tensor.shape)) for name, tensor in tensors.items()),
        "groups": [
            [group.name, group.size, [[m.tensor, m.axis, m.role, m.span] for m in _once(group)]]
            for group in groups.values()
        ],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _once(group: ChannelGroup) -> Iterator[Member]:
    """Yield one member per tensor axis, as version 0.1.0 did, whose fingerprints stay valid."""
    seen = set()
    for member in group.members:
        if (member.tensor, member.axis) not in seen:
            seen.add((member.tensor, member.axis))
            yield member
