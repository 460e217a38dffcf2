"""Pruning plans: the channels of each coupled group that stay.

A plan is a value without a reference to a model: `surgery` cuts a model. Every tensor axis that is
narrowed is part of the plan, so that applying one needs no second trace (design note 0003).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, cast, get_args

import numpy as np

from flyweight.errors import PlanError
from flyweight.graph.cost import Convention, Cost
from flyweight.graph.example_inputs import InputSpec, freeze_spec
from flyweight.graph.groups import Member, Role, orders_among, removed_positions
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.program import RecordedRun
from flyweight.graph.rescaling import Rescaled
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.json_values import parse_json

FORMAT = 1
_MOST_AXES = 16
_MOST_PLACES = 2**48


@dataclass(frozen=True)
class GroupPlan:
    """The channels of one group that stay.

    Attributes:
        channels: Number of channels of the group before the cut.
        keep: Sorted indices of the channels that stay.
        members: Every tensor axis that the group touches.
        exact: Whether the cut equals zeroing the removed channels where they are read.
    """

    channels: int
    keep: tuple[int, ...]
    members: tuple[Member, ...]
    exact: bool = True


@dataclass(frozen=True)
class PruningPlan:
    """Channels to keep, per group.

    Attributes:
        graph: Fingerprint of the graph that the plan was made for.
        groups: The channels that stay by group name, without the groups that are not cut.
        criterion: Name of the criterion that chose the channels.
        inputs: Shape and type of the positional inputs that the graph was traced with.
        notes: Remarks for the user, made when the plan was made.
        numbers: Values of attributes that the modules' own code counts channels with.
        keywords: Shape and type of the keyword inputs that the graph was traced with.
        runs: The recorded runs, which the check after a cut repeats. They are not part of the text
            of a plan, so a plan that was read has none.
        rescaled: Scales that the cut multiplies by the share of a weight's norm that stays.
    """

    graph: str
    groups: Mapping[str, GroupPlan]
    criterion: str
    inputs: tuple[InputSpec, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    numbers: Mapping[str, int] = field(default_factory=dict)
    keywords: Mapping[str, InputSpec] = field(default_factory=dict)
    runs: tuple[RecordedRun, ...] = field(default=(), compare=False, repr=False)
    rescaled: tuple[Rescaled, ...] = ()

    def __post_init__(self) -> None:
        for name, group in self.groups.items():
            _check_keep(name, group)

    @classmethod
    def of(
        cls,
        graph: ModelGraph,
        keep: Mapping[str, tuple[int, ...]],
        criterion: str,
        notes: tuple[str, ...] = (),
    ) -> "PruningPlan":
        """Return the plan that keeps these channels of these groups of `graph`."""
        narrow = {
            name: GroupPlan(group.size, keep[name], group.members, group.exact)
            for name, group in graph.groups.items()
            if name in keep and len(keep[name]) < group.size
        }
        counts = {name: len(group.keep) for name, group in narrow.items()}
        numbers = graph.numbers_under(counts)
        return cls(
            graph=graph.fingerprint,
            groups=narrow,
            criterion=criterion,
            inputs=graph.inputs,
            notes=(*notes, *graph.notes),
            numbers=numbers,
            keywords=graph.keywords,
            runs=graph.runs,
            rescaled=tuple(one for one in graph.rescaled if one.weight in _removed(narrow)),
        )

    @property
    def exact(self) -> bool:
        """Whether every cut equals zeroing the removed channels where they are read."""
        return all(group.exact for group in self.groups.values())

    @property
    def keep(self) -> dict[str, tuple[int, ...]]:
        """The kept indices of every narrowed group."""
        return {name: group.keep for name, group in self.groups.items()}

    def cost(self, graph: ModelGraph, convention: Convention = "real") -> Cost:
        """Return the cost of the pruned network, without building it.

        Raises:
            PlanError: The plan was made for another graph.
        """
        self.require(graph)
        kept = {name: group.size for name, group in graph.groups.items()}
        kept.update({name: len(group.keep) for name, group in self.groups.items()})
        return graph.costs.price(kept, convention)

    def slices(self, graph: ModelGraph) -> dict[str, dict[int, tuple[int, ...]]]:
        """Return the kept indices of every axis of every parameter and buffer that is narrowed.

        Raises:
            PlanError: The plan was made for another graph.
        """
        self.require(graph)
        self.require_shapes({name: tensor.shape for name, tensor in graph.tensors.items()})
        return {
            name: {
                axis: tuple(np.setdiff1d(np.arange(graph.tensors[name].shape[axis]), gone).tolist())
                for axis, gone in axes.items()
            }
            for name, axes in self.removed().items()
        }

    def removed(self) -> dict[str, dict[int, tuple[int, ...]]]:
        """Return the indices that are removed from every narrowed tensor axis."""
        return _removed(self.groups)

    @property
    def orders(self) -> frozenset[str]:
        """Names of the tensors that hold a permutation of channels."""
        return orders_among(group.members for group in self.groups.values())

    def require(self, graph: ModelGraph) -> None:
        """Check that the plan was made for `graph`.

        Raises:
            PlanError: It was not.
        """
        if self.graph != graph.fingerprint:
            raise PlanError(
                "A plan must meet the graph it was made for. Received a plan for graph "
                f"{self.graph} and a model whose graph is {graph.fingerprint}. Make the plan again "
                "from this model."
            )

    def require_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Check that a network has the tensors that the plan narrows, before anything is cut.

        Args:
            shapes: Shape of every parameter and buffer of the network, by name.

        Raises:
            PlanError: A tensor is missing or too small.
        """
        for group in self.groups.values():
            for member in group.members:
                if member.tensor not in shapes:
                    raise PlanError(
                        "A plan must meet the model it was made for. Received a plan that narrows "
                        f"'{member.tensor}', which the model does not have. Make the plan again "
                        "from this model."
                    )
                shape = tuple(shapes[member.tensor])
                if not _fits(member, group.channels, shape):
                    raise PlanError(
                        "A plan must meet the model it was made for. Received a model whose "
                        f"'{member.tensor}' has shape {shape}, which is too small for the plan of "
                        f"graph {self.graph:.40}. Use the model before any cut; this one may have "
                        "been pruned already."
                    )

    def to_json(self) -> str:
        """Return the plan as text; equal plans give equal text."""
        groups = {
            name: {
                "channels": group.channels,
                "keep": list(group.keep),
                "exact": group.exact,
                "touches": [[m.tensor, m.axis, m.role, m.span] for m in group.members],
            }
            for name, group in self.groups.items()
        }
        head = {
            "format": FORMAT,
            "graph": self.graph,
            "criterion": self.criterion,
            "inputs": self.inputs,
            # Only where there are some, so that all other plans stay the text that 0.1.0 writes.
            **({"keywords": dict(self.keywords)} if self.keywords else {}),
            "numbers": dict(self.numbers),
            **(
                {"rescaled": [list(astuple(one)) for one in self.rescaled]} if self.rescaled else {}
            ),
        }
        lines = [f' "{key}": {json.dumps(value)}' for key, value in head.items()]
        rows = [f"  {json.dumps(name)}: {json.dumps(group)}" for name, group in groups.items()]
        lines.append(' "groups": {\n' + ",\n".join(rows) + "\n }")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "PruningPlan":
        """Read what `to_json` wrote.

        Raises:
            PlanError: The text is not a plan, or of a format this version does not read.
        """
        must = "A plan must be the JSON that PruningPlan.to_json writes."
        with refusing(PlanError, must, "text", "Write the plan again."):
            data = parse_json(text)
            if data["format"] != FORMAT:
                raise PlanError(
                    f"A plan must have format {FORMAT} here. Received format {data['format']!r}. "
                    "Read it with the version of flyweight that wrote it."
                )
            groups = {name: _read_group(entry) for name, entry in data["groups"].items()}
            keywords = data.get("keywords", {})
            return cls(
                graph=str(data["graph"]),
                groups=groups,
                criterion=str(data["criterion"]),
                inputs=tuple(freeze_spec(spec) for spec in data["inputs"]),
                numbers={str(path): _whole(n) for path, n in data.get("numbers", {}).items()},
                keywords={str(name): freeze_spec(spec) for name, spec in keywords.items()},
                rescaled=tuple(_read_rescaled(*entry) for entry in data.get("rescaled", ())),
            )


def _removed(groups: Mapping[str, GroupPlan]) -> dict[str, dict[int, tuple[int, ...]]]:
    return removed_positions((one.members, one.channels, one.keep) for one in groups.values())


def _read_rescaled(scale: str, weight: str, axes: list[Any], order: float) -> Rescaled:
    return Rescaled(str(scale), str(weight), tuple(map(_whole, axes)), float(order))


def _read_group(entry: Mapping[str, Any]) -> GroupPlan:
    channels = _whole(entry["channels"])
    members = tuple(_read_member(channels, touched) for touched in entry["touches"])
    keep = tuple(_whole(index) for index in entry["keep"])
    return GroupPlan(channels, keep, members, bool(entry["exact"]))


def _read_member(channels: int, touched: list[Any]) -> Member:
    tensor, axis, role, span = touched
    if role not in get_args(Role):
        raise ValueError(f"a role is one of {', '.join(get_args(Role))}, not {role!r}")
    member = Member(str(tensor), _whole(axis), cast(Role, role), _read_span(span))
    extent = member.extent(channels)
    if extent is None or extent[0] < 0 or not 0 <= member.axis < _MOST_AXES:
        raise ValueError(f"the places of '{tensor}' do not fit {channels} channels")
    return member


def _read_span(span: list[Any]) -> Any:
    if span and isinstance(span[0], list):
        return tuple(tuple(_whole(place) for place in row) for row in span)
    start, step, repeat, stride = (_whole(value) for value in span)
    if any(abs(value) >= _MOST_PLACES for value in (start, step, repeat, stride)):
        raise ValueError("a place beyond the end of any tensor")
    return (start, step, repeat, stride)


def _fits(member: Member, channels: int, shape: tuple[int, ...]) -> bool:
    extent = member.extent(channels)
    if extent is None or not 0 <= member.axis < len(shape):
        return False
    low, high, count = extent
    return low >= 0 and high < shape[member.axis] and count <= shape[member.axis]


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} must be a whole number")
    return value


def _check_keep(name: str, group: GroupPlan) -> None:
    keep = group.keep
    if not keep:
        raise PlanError(
            f"Group '{name}' must keep a channel. Received an empty list. Lower its ratio."
        )
    if list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= group.channels:
        raise PlanError(
            f"Kept indices of group '{name}' must be rising, unique and in "
            f"0..{group.channels - 1}. Received {_shorten(keep)}. Correct the list."
        )


def _shorten(keep: tuple[int, ...]) -> str:
    return str(list(keep[:8]))[:-1] + (", ...]" if len(keep) > 8 else "]")
