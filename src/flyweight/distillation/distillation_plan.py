"""Distillation plans: which tensors of a student are compared with which of its teacher.

A plan is a frozen value that a pure function chooses from what hooks see of the two networks. It
knows no module; `capture.Capture` collects the tensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flyweight.distillation.seen_tensors import Head, SeenNetwork, SeenTensor
from flyweight.errors import PlanError, nearest

Place = Literal["stage", "head"]
_MOST_STAGES = 4
"""Of the coarsest stages; maps of finer ones are large, and hardly differ."""
_CROSSED_LAYERS = 2
"""Convolutions of a teacher's head that a student's features go through: the last hidden one and
that of the output, as in the published configs of CrossKD."""
_MOST_DEEPER, _MOST_DEEPER_TOKENS = 2, 1
"""Parts of a path by which the end of a stage may lie deeper than others. Attention maps and hidden
layers have sizes of their own, deep inside of blocks."""


@dataclass(frozen=True)
class Tap:
    """A pair of features to compare.

    Attributes:
        name: Unique in the plan, the student's operation.
        place: `stage`, the last map of a size; `head`, what a head takes; both are features.
        student: The student's tensor.
        teacher: The teacher's.
    """

    name: str
    place: Place
    student: SeenTensor
    teacher: SeenTensor

    @property
    def widens(self) -> bool:
        """Whether an adaptor must change the student's width."""
        return self.student.channels != self.teacher.channels

    def __str__(self) -> str:
        shapes = f"{_sizes(self.student.shape)} -> {_sizes(self.teacher.shape)}"
        return f"{self.place} {self.student.operation} / {self.teacher.operation} ({shapes})"


@dataclass(frozen=True)
class Crossing:
    """A place in a student's head whose features the teacher's last layers can take.

    Attributes:
        tap: The features; those of the teacher are what its layers take otherwise.
        modules: Paths of the teacher's modules from there to its output.
    """

    tap: Tap
    modules: tuple[str, ...]


@dataclass(frozen=True)
class OutputPair:
    """A pair of outputs to compare.

    Attributes:
        student: The student's output.
        teacher: The teacher's.
        crossed: Where the student's features enter the teacher's head; None where the output is
            not what convolutions make of a map.
    """

    student: Head
    teacher: Head
    crossed: Crossing | None


@dataclass(frozen=True)
class DistillationPlan:
    """What is compared, from the first layer to the last.

    Attributes:
        taps: Pairs of features.
        outputs: Pairs of outputs; empty where the numbers of outputs differ.
        same_names: Whether the pairs were matched by name, as those of a pruned network are with
            the dense one; otherwise by stride and order.
    """

    taps: tuple[Tap, ...]
    outputs: tuple[OutputPair, ...]
    same_names: bool

    def features(self, places: Sequence[Place] = ("stage", "head")) -> tuple[Tap, ...]:
        """Return the taps at some places; all where there is none.

        Detectors of two stages have no heads on maps: their pyramid is compared instead.
        """
        return tuple(tap for tap in self.taps if tap.place in places) or self.taps

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """Where a student's features enter the teacher's heads."""
        return tuple(pair.crossed for pair in self.outputs if pair.crossed is not None)

    def __str__(self) -> str:
        return "\n".join(
            [*map(str, self.taps), *(f"output {o.student.place}" for o in self.outputs)]
        )


def plan_taps(student: SeenNetwork, teacher: SeenNetwork) -> DistillationPlan:
    """Choose the taps of a student and its teacher.

    Taps are the last map of each size, as the outermost module returns it, of the four coarsest
    sizes; and what the heads take. Networks of tokens have the last tensor of each shape instead.
    Where both networks execute the same operations, as a pruned network and the dense one do, a tap
    is compared with the teacher's operation of the same name; else with its tap of the same stride.

    Args:
        student: What is seen of the student.
        teacher: What is seen of the teacher, perhaps with another input size.
    """
    by_name = _pairs_by_name(student, teacher)
    same = bool(by_name)
    pairs = by_name or list(_pairs_by_stride(student, teacher))
    taps = tuple(Tap(ours.operation, place, ours, theirs) for place, ours, theirs in pairs)
    return DistillationPlan(taps, _outputs(student, teacher), same)


def plan_named(
    student: SeenNetwork, teacher: SeenNetwork, names: Sequence[str | tuple[str, str]]
) -> DistillationPlan:
    """Return the plan with taps that a user named.

    Args:
        student: What is seen of the student.
        teacher: What is seen of the teacher.
        names: For each tap an operation, or a module whose result is taken; a pair where the
            teacher's has another name.

    Raises:
        PlanError: There is no such operation or module, or its result is no features.
    """
    chosen = [(one, one) if isinstance(one, str) else one for one in names]
    taps = tuple(_named(student, teacher, ours, theirs) for ours, theirs in chosen)
    automatic = plan_taps(student, teacher)
    return DistillationPlan(taps, automatic.outputs, automatic.same_names)


def _named(student: SeenNetwork, teacher: SeenNetwork, ours: str, theirs: str) -> Tap:
    one, other = _find(student, ours, "student"), _find(teacher, theirs, "teacher")
    if one.layout != other.layout and not (one.is_map and other.is_map):
        raise PlanError(
            f"A tap must give features of one kind. Received {one.layout} at '{ours}' of the "
            f"student and {other.layout} at '{theirs}' of the teacher. Name other taps."
        )
    return Tap(one.operation, "stage", one, other)


def _find(network: SeenNetwork, name: str, whose: str) -> SeenTensor:
    found = [one for one in network.tensors if one.operation == name]
    found = found or [one for one in network.tensors if f"{one.module}.".startswith(f"{name}.")]
    if not found:
        known = [one.operation for one in network.tensors]
        raise PlanError(
            f"A tap must be an operation whose result a module returns, or such a module. Received "
            f"'{name}', which the {whose} does not have. {nearest(name, known)}"
        )
    return found[-1]


def _chosen(network: SeenNetwork) -> list[tuple[Place, SeenTensor]]:
    """Return the taps of a network by itself, in the order of execution."""
    # Results whose number depends on the image come from heads on regions, not on maps.
    dense = network.heads if all(_is_dense(head, network) for head in network.heads) else ()
    sources = {head.source for head in dense}
    heads = [one for one in network.tensors if one.operation in sources]
    stages = _token_stages(network) if dense and not heads else _stages(network)
    by_name: dict[str, tuple[Place, SeenTensor]] = {
        **{one.operation: ("stage", one) for one in stages},
        **{one.operation: ("head", one) for one in heads},
    }
    return [by_name[one.operation] for one in network.tensors if one.operation in by_name]


def _is_dense(head: Head, network: SeenNetwork) -> bool:
    return len(head.shape) in (2, 4) and head.shape[0] == network.input_shape[0]


def _stages(network: SeenNetwork) -> list[SeenTensor]:
    outputs = {head.operation for head in network.heads}
    widths = {width for head in network.heads for width in head.shape[1:2]}
    last: dict[int, SeenTensor] = {}
    for one in network.tensors:
        if not one.is_map or one.operation in outputs or one.channels in widths:
            continue
        best = last.get(one.stride)
        if best is None or one.depth <= best.depth:
            last[one.stride] = one
    outer = _outermost(last.values(), _MOST_DEEPER)
    return sorted(outer, key=lambda one: -one.stride)[:_MOST_STAGES]


def _outermost(found: Iterable[SeenTensor], deeper: int) -> list[SeenTensor]:
    """Return the tensors whose depth is at most so many parts more than the least."""
    tensors = list(found)
    least = min((one.depth for one in tensors), default=0)
    return [one for one in tensors if one.depth <= least + deeper]


def _token_stages(network: SeenNetwork) -> list[SeenTensor]:
    outputs = {head.operation for head in network.heads}
    last: dict[tuple[int, ...], SeenTensor] = {}
    for one in network.tensors:
        if one.layout != "tokens" or one.operation in outputs:
            continue
        best = last.get(one.shape)
        if best is None or one.depth <= best.depth:
            last[one.shape] = one
    return _outermost(last.values(), _MOST_DEEPER_TOKENS)[-_MOST_STAGES:]


def _pairs_by_name(
    student: SeenNetwork, teacher: SeenNetwork
) -> list[tuple[Place, SeenTensor, SeenTensor]]:
    """Return the student's taps with the teacher's of the same names; none for another network.

    A deeper network of one family has the names of a shallower one, too, within its stages.
    """
    if [one.operation for one in student.tensors] != [one.operation for one in teacher.tensors]:
        return []
    pairs = []
    for place, ours in _chosen(student):
        theirs = teacher.find(ours.operation)
        if theirs is None or theirs.layout != ours.layout or theirs.stride != ours.stride:
            return []
        pairs.append((place, ours, theirs))
    return pairs


def _pairs_by_stride(
    student: SeenNetwork, teacher: SeenNetwork
) -> Iterator[tuple[Place, SeenTensor, SeenTensor]]:
    ours, theirs = _chosen(student), _chosen(teacher)
    left = list(theirs)
    for place, one in ours:
        fits = [pair for pair in left if pair[0] == place and _alike(one, pair[1])]
        if fits:
            left.remove(fits[0])
            yield place, one, fits[0][1]


def _alike(one: SeenTensor, other: SeenTensor) -> bool:
    if one.is_map or other.is_map:
        return one.is_map and other.is_map and one.stride == other.stride
    # Tokens have no positions that could be resized.
    return one.layout == other.layout and one.shape[1:-1] == other.shape[1:-1]


def _outputs(student: SeenNetwork, teacher: SeenNetwork) -> tuple[OutputPair, ...]:
    if len(student.heads) != len(teacher.heads):
        return ()
    return tuple(
        OutputPair(ours, theirs, _crossing(ours, theirs, student, teacher))
        for ours, theirs in zip(student.heads, teacher.heads, strict=True)
    )


def _crossing(
    ours: Head, theirs: Head, student: SeenNetwork, teacher: SeenNetwork
) -> Crossing | None:
    """Return the earliest place among the last layers where both heads take maps of one stride."""
    for one, other in [*zip(ours.ends, theirs.ends, strict=False)][:_CROSSED_LAYERS][::-1]:
        taken, given = student.find(one.source), teacher.find(other.source)
        if taken is not None and given is not None and _alike(taken, given):
            return Crossing(Tap(one.source, "head", taken, given), other.modules)
    return None


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))
