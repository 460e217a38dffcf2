"""Channel identities: which positions of which tensors are one and the same channel.

Every axis of every parameter gets one identity per position. Operations carry identities from
tensor to tensor and join those that can only be removed together; what ends up joined is one
channel of the network, wherever it appears.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flyweight.graph.rescaling import Factors

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Field:
    """Identities spread over one or more axes of a tensor.

    Attributes:
        axes: The axes of the tensor, in rising order.
        ids: One identity per position; its shape is the tensor's sizes along `axes`. Positions
            that share an identity leave together. A field over several axes can only be narrowed
            to a box, because a tensor has one size per axis.
    """

    axes: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True, eq=False)
class Flow:
    """A tensor of the traced network and the identities of its axes.

    Attributes:
        shape: Its sizes.
        fields: Disjoint; an axis in no field has a fixed size (batch, image rows, tokens).
        parameter: Whether it is made of parameters and buffers alone, as they are stored or
            computed from nothing else.
        zeros: Of a tensor made of stored ones, whether it is zero where they are.
        factors: Of a tensor made of stored ones, those that it is the product of, and their norms.
        lost: Of a tensor made of stored ones, identities of those that were not followed to it.
        order: The values of a stored tensor that holds a permutation; else None.
        counted: Whether its values are positions that the code counted out (`arange`), in any
            arrangement: each value is the position of its identity, see `Identities.positions_of`.
    """

    shape: tuple[int, ...]
    fields: tuple[Field, ...] = ()
    parameter: bool = False
    zeros: bool = True
    factors: Factors | None = None
    lost: tuple[Ids, ...] = ()
    order: Ids | None = None
    counted: bool = False

    def field_on(self, axis: int) -> Field | None:
        """Return the field that covers `axis`, if there is one."""
        return next((field for field in self.fields if axis in field.axes), None)


@dataclass
class Identities:
    """The ledger that a trace writes into."""

    count: int = 0
    joined: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    mixed: list[tuple[Ids, str]] = field(default_factory=list)
    boxes: list[Ids] = field(default_factory=list)
    alike: list[tuple[int, int]] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)

    def fresh(self, size: int) -> Ids:
        """Return `size` identities never seen before."""
        first = self.count
        self.count += size
        return np.arange(first, first + size, dtype=np.int64)

    def fresh_alike(self, size: int) -> Ids:
        """Return `size` new identities of an axis along which the code repeats one value.

        Which of these positions leaves makes no difference. The code determines how many there are;
        whether it follows, a trial finds out.
        """
        ids = self.fresh(size)
        self.alike.append((self.count - size, self.count))
        return ids

    def are_alike(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which of `ids` come from `fresh_alike`, so that no stored tensor has them."""
        return _starts_of(ids, self.alike) >= 0

    def fresh_counted(self, size: int) -> Ids:
        """Return `size` new identities, one for each of the positions from zero up."""
        ids = self.fresh(size)
        self.counted.append((self.count - size, self.count))
        return ids

    def positions_of(self, ids: Ids) -> Ids | None:
        """Return the positions that identities from `fresh_counted` stand for; None of others."""
        starts = _starts_of(ids, self.counted)
        return ids - starts if (starts >= 0).all() else None

    def join(self, left: Ids, right: Ids) -> None:
        """Declare that identities at equal positions leave together; broadcasts like numpy."""
        left, right = np.broadcast_arrays(left, right)
        self.joined.append((left.ravel(), right.ravel()))

    def freeze(self, ids: Ids, reason: str) -> None:
        """Declare that none of `ids` can be removed, with a reason that the user reads."""
        self.frozen.append((ids.ravel(), reason))

    def mix(self, ids: Ids, operation: str) -> None:
        """Declare that `operation` computes across `ids`, so that a cut changes what stays."""
        self.mixed.append((ids.ravel(), operation))

    def box(self, ids: Ids) -> None:
        """Declare that what stays of a many-axis field must be a box."""
        self.boxes.append(ids)

    def collapse(self, field: Field, *keep: int) -> Field:
        """Join along every axis of `field` but those to `keep`, on which alone the result lies."""
        places = [field.axes.index(axis) for axis in keep]
        sizes = [field.ids.shape[place] for place in places]
        ids = np.moveaxis(field.ids, places, range(len(places))).reshape(*sizes, -1)
        if ids.shape[-1] > 1:
            self.join(ids[..., :1], ids[..., 1:])
        return Field(keep, ids[..., 0])

    def components(self) -> NDArray[np.int64]:
        """Return one number per identity, equal where identities are joined.

        Boxes are settled here: of the axes along which a box still varies, the longest (of equals,
        the last) stays free and the others are joined, which is what `view(batch, groups, -1)`
        asks of a shuffle.
        """
        labels = self._connected()
        for _ in range(1 + len(self.boxes)):
            if not self._settle_boxes(labels):
                break
            labels = self._connected()
        return labels

    def _connected(self) -> NDArray[np.int64]:
        """Number the connected components: roots hook onto smaller roots until none are apart."""
        root = np.arange(self.count, dtype=np.int64)
        left = np.concatenate([root[:0], *(pair[0] for pair in self.joined)])
        right = np.concatenate([root[:0], *(pair[1] for pair in self.joined)])
        while (apart := root[left] != root[right]).any():
            left, right = left[apart], right[apart]
            one, other = root[left], root[right]
            np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
            while ((further := root[root]) != root).any():
                root = further
        number = np.cumsum(root == np.arange(self.count)) - 1
        labels: Ids = number[root]
        return labels

    def _settle_boxes(self, labels: NDArray[np.int64]) -> bool:
        changed = False
        for ids in self.boxes:
            found = labels[ids]
            free = [axis for axis in range(found.ndim) if (found != found.take([0], axis)).any()]
            if len(free) > 1:
                keep = max(free, key=lambda axis: (found.shape[axis], axis))
                self.collapse(Field(tuple(range(ids.ndim)), ids), keep)
                changed = True
        return changed


def _starts_of(ids: Ids, ranges: list[tuple[int, int]]) -> Ids:
    """Return the start of the range that each of `ids` is in; -1 where it is in none.

    Args:
        ids: Identities.
        ranges: First identity and the one after the last, in rising order.
    """
    if not ranges:
        return np.full(ids.shape, -1, dtype=np.int64)
    starts, ends = np.array(ranges, dtype=np.int64).T
    place = np.searchsorted(starts, ids, "right") - 1
    found: Ids = np.where((place >= 0) & (ids < ends[place]), starts[place], -1)
    return found
