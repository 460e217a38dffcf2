"""Sizes of axes as functions of the channels that stay."""

import numpy as np
from numpy.typing import NDArray

from flyweight.graph.cost import AxisSize
from flyweight.graph.identity import Field, Flow, Ids

Labels = NDArray[np.int64]


class AxisSizes:
    """Expresses sizes of axes through the channels that stay of each group."""

    def __init__(self, labels: Labels, owner: Labels, named: list[str]) -> None:
        self.labels, self.owner, self.named = labels, owner, named
        self._known: dict[tuple[int, int], AxisSize] = {}
        self.sizes = np.bincount(owner[owner >= 0], minlength=len(named))

    def of(self, ids: Ids | None, size: int) -> AxisSize:
        """Return the size of an axis with these identities; without any it is fixed."""
        if ids is None:
            return AxisSize(size)
        counts = np.bincount(self.owner[self.labels[ids]] + 1, minlength=len(self.named) + 1)[1:]
        found = np.flatnonzero(counts).tolist()
        shares, fixed = [], size - int(counts.sum())
        for group in found:
            each, rest = divmod(int(counts[group]), int(self.sizes[group]))
            fixed += rest
            shares.append((self.named[group], each))
        return AxisSize(fixed, tuple(shares))

    def along(self, flow: Flow, axis: int) -> AxisSize:
        """Return the size of one axis of a tensor; of a box, only the free axis can change."""
        found, size = flow.field_on(axis), flow.shape[axis]
        if found is None:
            return AxisSize(size)
        # Most operations hand on the very same field.
        key = (id(found), axis - found.axes[0])
        if key not in self._known:
            self._known[key] = self._along(found, axis, size)
        return self._known[key]

    def _along(self, found: Field, axis: int, size: int) -> AxisSize:
        ids = np.moveaxis(found.ids, found.axes.index(axis), 0).reshape(size, -1)[:, 0]
        if len(found.axes) > 1:
            labels = self.labels[ids]
            if (labels == labels[0]).all():
                return AxisSize(size)
        return self.of(ids, size)
