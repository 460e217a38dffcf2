"""Coupled channel groups: channels that can only go together, and where each one lives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

Role = Literal["produces", "consumes", "follows", "orders"]
Span = tuple[int, int, int, int] | tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Member:
    """One tensor axis that a group narrows.

    Attributes:
        tensor: Name of the parameter or buffer.
        axis: Its axis.
        role: `produces` where the axis makes the channels (a convolution's outputs), `consumes`
            where it reads them (the next one's inputs), `follows` for what goes along with them
            (bias, normalisation, per-channel scales), `orders` for a stored permutation, whose
            values change with them. An axis of tied weights makes channels in one place and reads
            them in another: it is two members of its group.
        span: Where each channel lies on the axis. Either (start, step, repeat, stride): channel c
            lies at `start + c * step + r * stride` for r < repeat; or every position spelled out.
    """

    tensor: str
    axis: int
    role: Role
    span: Span

    def positions(self, channels: int) -> NDArray[np.int64]:
        """Return the positions on the axis, `(channels, positions per channel)`."""
        if self.span and isinstance(self.span[0], tuple):
            return np.array(self.span, dtype=np.int64)
        start, step, repeat, stride = (int(value) for value in self.span)  # type: ignore[arg-type]
        rows = start + step * np.arange(channels, dtype=np.int64)
        return rows[:, None] + stride * np.arange(repeat, dtype=np.int64)[None, :]

    def extent(self, channels: int) -> tuple[int, int, int] | None:
        """Return the first and last position, and how many there are; None if rows do not fit.

        Nothing is allocated: a span can be read from a file before anything else about it is known.
        """
        if self.span and isinstance(self.span[0], tuple):
            rows = self.span
            count = len(rows[0])
            if len(rows) != channels or count < 1 or any(len(row) != count for row in rows):
                return None
            return min(map(min, rows)), max(map(max, rows)), channels * count
        start, step, repeat, stride = cast(tuple[int, int, int, int], self.span)
        if channels < 1 or repeat < 1:
            return None
        across, within = step * (channels - 1), stride * (repeat - 1)
        low = start + min(0, across) + min(0, within)
        return low, start + max(0, across) + max(0, within), channels * repeat

    @property
    def repeat(self) -> int:
        """Positions per channel."""
        first = self.span[0]
        return len(first) if isinstance(first, tuple) else int(self.span[2])  # type: ignore[arg-type]


def removed_positions(
    cuts: Iterable[tuple[tuple[Member, ...], int, Sequence[int]]],
) -> dict[str, dict[int, tuple[int, ...]]]:
    """Return the indices that leave every tensor axis.

    Args:
        cuts: Members of a group, its channels, and the channels that stay.
    """
    gone: dict[str, dict[int, set[int]]] = {}
    for members, channels, keep in cuts:
        rows = np.setdiff1d(np.arange(channels), np.asarray(keep))
        for member in members:
            positions = member.positions(channels)[rows].ravel().tolist()
            gone.setdefault(member.tensor, {}).setdefault(member.axis, set()).update(positions)
    return {
        tensor: {axis: tuple(sorted(places)) for axis, places in axes.items()}
        for tensor, axes in gone.items()
    }


def orders_among(groups: Iterable[tuple[Member, ...]]) -> frozenset[str]:
    """Return the names of the tensors that hold an order of channels."""
    return frozenset(m.tensor for members in groups for m in members if m.role == "orders")


def span_of(positions: NDArray[np.int64]) -> Span:
    """Return the shortest `Span` for positions of shape (channels, positions per channel).

    Example:
        >>> span_of(np.array([[4], [5], [6]]))
        (4, 1, 1, 1)
        >>> span_of(np.array([[0, 1], [2, 3]]))
        (0, 2, 2, 1)
        >>> span_of(np.array([[0], [1], [5]]))
        ((0,), (1,), (5,))
    """
    channels, repeat = positions.shape
    start = int(positions[0, 0])
    step = int(positions[1, 0]) - start if channels > 1 else 1
    stride = int(positions[0, 1]) - start if repeat > 1 else 1
    rows = start + step * np.arange(channels)
    if (positions == rows[:, None] + stride * np.arange(repeat)[None, :]).all():
        return (start, step, repeat, stride)
    return tuple(tuple(int(value) for value in row) for row in positions)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only go together.

    Attributes:
        name: The leading weight: the first one, in order of execution, that makes these channels.
        size: How many channels.
        members: Every tensor axis they touch.
        reason: Why none of them can be removed, as text; `None` if they can.
        mixes: Operations that compute across the channels (LayerNorm, softmax). Removing channels
            then changes what the others compute, so such a group is cut only on request.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    reason: str | None = None
    mixes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether a cut equals zeroing the removed channels where they are read."""
        return not self.mixes

    @property
    def prunable(self) -> bool:
        """Whether channels of this group can be removed exactly."""
        return self.reason is None and self.exact

    def producers(self) -> tuple[Member, ...]:
        """Return the members that make the channels."""
        return tuple(member for member in self.members if member.role == "produces")
