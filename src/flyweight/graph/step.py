"""Steps: traced operations in the form that rules receive."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyweight.graph.cost import Geometry
from flyweight.graph.identity import Field, Flow, Identities, Ids
from flyweight.graph.rescaling import Norms

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CountedAxis:
    """An axis that an operation's multiply-adds grow with."""

    size: int
    ids: Ids | None = None


@dataclass(frozen=True, eq=False)
class CountedLayer:
    """A layer that can be timed by itself, before groups are known."""

    geometry: Geometry
    inputs: CountedAxis
    outputs: CountedAxis


@dataclass(frozen=True, eq=False)
class CountedOp:
    """The multiply-adds of one operation before groups are known."""

    where: str
    op: str
    positions: int
    axes: tuple[CountedAxis, ...]
    paddle: bool
    layer: CountedLayer | None = None


@dataclass
class Ledger:
    """Everything a trace writes down while it walks the operations."""

    identities: Identities = field(default_factory=Identities)
    produced: list[Ids] = field(default_factory=list)
    consumed: list[Ids] = field(default_factory=list)
    lost: list[Ids] = field(default_factory=list)
    parts: list[Ids] = field(default_factory=list)
    orders: list[Ids] = field(default_factory=list)
    norms: Norms = field(default_factory=Norms)
    summed: list[tuple[Ids, Ids]] = field(default_factory=list)
    counted: list[CountedOp] = field(default_factory=list)
    uncounted: dict[str, int] = field(default_factory=dict)


@dataclass
class Step:
    """One operation with its arguments by name.

    Attributes:
        op: Its ATen name without overload and in-place mark, for example `conv2d`.
        where: Path of the module that runs it.
        arguments: Values by schema name; tensors are `Flow`s.
        shapes: Shapes of its results.
        ledger: Where rules write.
    """

    op: str
    where: str
    arguments: dict[str, Any]
    shapes: tuple[Shape, ...]
    ledger: Ledger

    @property
    def identities(self) -> Identities:
        """The ledger's identities."""
        return self.ledger.identities

    def flow(self, name: str) -> Flow:
        """Return the tensor argument `name`."""
        value = self.arguments[name]
        if not isinstance(value, Flow):
            raise TypeError(
                f"{self.op} must have a tensor as '{name}', received {type(value).__name__}"
            )
        return value

    def flows(self) -> list[Flow]:
        """Return every tensor among the arguments, lists included, in order."""
        found: list[Flow] = []
        for value in self.arguments.values():
            items = value if isinstance(value, (list, tuple)) else (value,)
            found.extend(item for item in items if isinstance(item, Flow))
        return found

    def result(self, *fields: Field, index: int = 0) -> Flow:
        """Return result `index` with these identities."""
        return Flow(self.shapes[index], tuple(fields))

    def place(self) -> str:
        """Say where this is, for a user."""
        return f"{self.op} at '{self.where}'" if self.where else f"{self.op} in the model's forward"

    def freeze(self, ids: Ids, why: str) -> None:
        """Freeze `ids`, naming this operation."""
        self.identities.freeze(ids, f"{why}: {self.place()}")

    def mix(self, ids: Ids) -> None:
        """Record that this operation computes across `ids`."""
        self.identities.mix(ids, self.place())

    def single(self, flow: Flow, axis: int) -> Ids | None:
        """Return the identities of `axis`, joining away the other axes of its field."""
        found = flow.field_on(axis % len(flow.shape))
        if found is None:
            return None
        if found.axes == (axis % len(flow.shape),):
            return found.ids
        return self.identities.collapse(found, axis % len(flow.shape)).ids

    def join(self, left: Ids | None, right: Ids | None) -> Ids | None:
        """Join two axes of equal length; where one has a fixed size, the other is frozen."""
        if left is None and right is None:
            return None
        if left is None or right is None:
            ids = right if left is None else left
            if ids is not None:
                self.freeze(ids, "meets a tensor whose size is fixed")
            return None
        self.identities.join(left, right)
        return left

    def join_weights(self, left: Ids, right: Ids) -> None:
        """Join axes of stored tensors whose sum is a weight: who makes or reads one does the other.

        Broadcasts like numpy.
        """
        left, right = np.broadcast_arrays(left, right)
        self.identities.join(left, right)
        self.ledger.summed.append((left.ravel(), right.ravel()))

    def part(self, ids: Ids) -> None:
        """Record that code counts `ids` apart from the rest of their axis."""
        self.ledger.parts.append(ids)

    def count(
        self,
        positions: int,
        axes: tuple[CountedAxis, ...],
        *,
        paddle: bool = False,
        layer: CountedLayer | None = None,
    ) -> None:
        """Record multiply-adds: `positions` times the sizes of `axes`."""
        self.ledger.counted.append(CountedOp(self.where, self.op, positions, axes, paddle, layer))


def drop_constant_axes(found: Field) -> Field | None:
    """Return `found` without the axes along which its identities repeat."""
    axes = list(found.axes)
    ids: Ids = found.ids
    for position in reversed(range(ids.ndim)):
        if ids.shape[position] == 1 or (ids == ids.take([0], position)).all():
            ids = np.take(ids, 0, axis=position)
            del axes[position]
    return Field(tuple(axes), ids) if axes else None


def moved(found: Field, target: dict[int, int]) -> Field:
    """Return `found` with its axes renumbered, in rising order."""
    axes = [target[axis] for axis in found.axes]
    order = np.argsort(axes)
    return Field(tuple(axes[i] for i in order), np.transpose(found.ids, order))
