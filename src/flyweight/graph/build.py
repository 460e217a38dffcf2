"""From joined identities to groups, names and costs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight.graph.cost import AxisSize, CostModel, OpCost, TensorCost
from flyweight.graph.groups import ChannelGroup, Member, Role, span_of
from flyweight.graph.identity import Ids
from flyweight.graph.model_graph import InputSpec, ModelGraph
from flyweight.graph.step import CountedAxis, Ledger

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of one parameter or buffer."""

    tensor: str
    axis: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class _Draft:
    """A group before it has a name: its components in order and the slots they touch."""

    components: Labels
    slots: tuple[int, ...]


def build_graph(
    ledger: Ledger,
    slots: list[Slot],
    tensors: Mapping[str, Tensor],
    inputs: tuple[InputSpec, ...],
) -> ModelGraph:
    """Settle what a trace wrote down.

    Args:
        ledger: Joins, frozen and mixed identities, counted operations.
        slots: The axes of the stored tensors, in order of the trace's inputs.
        tensors: Parameters and buffers by name.
        inputs: Shape and type of every example input.
    """
    labels = ledger.identities.components()
    order = _execution_order(ledger, slots)
    facts = _Facts(ledger, labels)
    drafts = _draft_groups(labels, slots, order, facts)
    groups = _name_groups(drafts, labels, slots, facts)
    owner, named = _owners(drafts, groups, labels)
    sizes = _AxisSizes(labels, owner, named)
    return ModelGraph(
        groups=groups,
        costs=_cost_model(ledger, slots, tensors, sizes),
        tensors=dict(tensors),
        inputs=inputs,
        fingerprint=_fingerprint(groups, tensors),
    )


class _Facts:
    """Frozen, mixed and producing components."""

    def __init__(self, ledger: Ledger, labels: Labels) -> None:
        count = int(labels.max()) + 1 if len(labels) else 0
        self.reason: dict[int, str] = {}
        for ids, reason in ledger.identities.frozen:
            for component in np.unique(labels[ids]).tolist():
                self.reason.setdefault(component, reason)
        self.mixes: dict[int, list[str]] = {}
        for ids, operation in ledger.identities.mixed:
            for component in np.unique(labels[ids]).tolist():
                known = self.mixes.setdefault(component, [])
                if operation not in known:
                    known.append(operation)
        self.produces = np.zeros(count, dtype=bool)
        for ids in ledger.produced:
            self.produces[labels[ids]] = True
        self.made = _id_mask(len(labels), ledger.produced)
        self.read = _id_mask(len(labels), ledger.consumed)


def _id_mask(count: int, found: list[Ids]) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=bool)
    for ids in found:
        mask[ids] = True
    return mask


def _execution_order(ledger: Ledger, slots: list[Slot]) -> list[int]:
    """Return the slots as the network meets them: producers in the order they run."""
    first_use: dict[int, int] = {}
    for place, ids in enumerate(ledger.produced):
        first_use.setdefault(int(ids[0]), place)
    last = len(ledger.produced)
    keys = [(first_use.get(int(slot.ids[0]), last), index) for index, slot in enumerate(slots)]
    return [index for _, index in sorted(keys)]


def _draft_groups(
    labels: Labels, slots: list[Slot], order: list[int], facts: _Facts
) -> list[_Draft]:
    """Gather components that touch the same slots equally often into one group."""
    rank = np.empty(len(slots), dtype=np.int64)
    rank[order] = np.arange(len(slots))
    component = np.concatenate([labels[slot.ids] for slot in slots]) if slots else labels
    place = np.concatenate([np.full(len(s.ids), rank[i]) for i, s in enumerate(slots)])
    wanted = facts.produces[component]
    component, place = component[wanted], place[wanted]
    by_component = np.lexsort((place, component))
    component, place = component[by_component], place[by_component]
    if not len(component):
        return []
    starts = np.flatnonzero(np.r_[True, component[1:] != component[:-1]])
    gathered: dict[tuple[bytes, str | None, tuple[str, ...]], list[int]] = {}
    for start, touched in zip(starts, np.split(place, starts[1:]), strict=True):
        found = int(component[start])
        key = (touched.tobytes(), facts.reason.get(found), tuple(facts.mixes.get(found, ())))
        gathered.setdefault(key, []).append(found)
    drafts = []
    for (touched_bytes, _, _), components in gathered.items():
        touched = np.unique(np.frombuffer(touched_bytes, dtype=np.int64))
        drafts.append(_Draft(np.array(components), tuple(order[i] for i in touched.tolist())))
    return sorted(drafts, key=lambda draft: rank[draft.slots[0]])


def _name_groups(
    drafts: list[_Draft], labels: Labels, slots: list[Slot], facts: _Facts
) -> dict[str, ChannelGroup]:
    groups: dict[str, ChannelGroup] = {}
    for index, draft in enumerate(drafts):
        leading = next(i for i in draft.slots if facts.made[slots[i].ids].any())
        ordered = _in_order(draft.components, labels[slots[leading].ids])
        drafts[index] = _Draft(ordered, draft.slots)
        members = tuple(_member(slots[i], labels, ordered, facts) for i in draft.slots)
        name = slots[leading].tensor
        if name in groups:
            first = members[draft.slots.index(leading)].positions(len(ordered))[0, 0]
            name = f"{name}[{first}:]"
        component = int(ordered[0])
        groups[name] = ChannelGroup(
            name=name,
            size=len(ordered),
            members=members,
            reason=facts.reason.get(component),
            mixes=tuple(facts.mixes.get(component, ())),
        )
    return groups


def _in_order(components: Labels, along: Labels) -> Labels:
    """Sort components by their first position on the leading axis."""
    found, first = np.unique(along, return_index=True)
    position = dict(zip(found.tolist(), first.tolist(), strict=True))
    return np.array(sorted(components.tolist(), key=position.__getitem__))


def _member(slot: Slot, labels: Labels, ordered: Labels, facts: _Facts) -> Member:
    along = labels[slot.ids]
    place_of = np.full(int(max(ordered.max(), along.max())) + 1, -1)
    place_of[ordered] = np.arange(len(ordered))
    channel = place_of[along]
    inside = np.flatnonzero(channel >= 0)
    by_channel = inside[np.argsort(channel[inside], kind="stable")]
    role: Role = "follows"
    if facts.made[slot.ids[inside]].any():
        role = "produces"
    elif facts.read[slot.ids[inside]].any():
        role = "consumes"
    return Member(slot.tensor, slot.axis, role, span_of(by_channel.reshape(len(ordered), -1)))


def _owners(
    drafts: list[_Draft], groups: Mapping[str, ChannelGroup], labels: Labels
) -> tuple[Labels, list[str]]:
    """Return, per component, the index of its group (-1 for none), and the groups' names."""
    owner = np.full(int(labels.max()) + 1 if len(labels) else 0, -1)
    for index, draft in enumerate(drafts):
        owner[draft.components] = index
    return owner, list(groups)


class _AxisSizes:
    """Expresses axes through groups."""

    def __init__(self, labels: Labels, owner: Labels, named: list[str]) -> None:
        self.labels, self.owner, self.named = labels, owner, named
        self.sizes = np.bincount(owner[owner >= 0], minlength=len(named))

    def of(self, ids: Ids | None, size: int) -> AxisSize:
        if ids is None:
            return AxisSize(size)
        owners = self.owner[self.labels[ids]]
        inside = owners[owners >= 0]
        found, counts = np.unique(inside, return_counts=True)
        shares, fixed = [], size - len(inside)
        for group, count in zip(found.tolist(), counts.tolist(), strict=True):
            each, rest = divmod(count, int(self.sizes[group]))
            fixed += rest
            shares.append((self.named[group], each))
        return AxisSize(fixed, tuple(shares))


def _cost_model(
    ledger: Ledger, slots: list[Slot], tensors: Mapping[str, Tensor], sizes: _AxisSizes
) -> CostModel:
    def axis_size(axis: CountedAxis) -> AxisSize:
        return sizes.of(axis.ids, axis.size)

    ops = tuple(
        OpCost(op.where, op.op, op.positions, tuple(map(axis_size, op.axes)), op.paddle)
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
        if not name.endswith("num_batches_tracked")
    )
    return CostModel(ops, priced, dict(ledger.uncounted))


def _fingerprint(groups: Mapping[str, ChannelGroup], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of structure alone: the same at any input size and torch version."""
    facts = {
        "tensors": sorted((name, list(tensor.shape)) for name, tensor in tensors.items()),
        "groups": [
            [group.name, group.size, [[m.tensor, m.axis, m.role, m.span] for m in group.members]]
            for group in groups.values()
        ],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
