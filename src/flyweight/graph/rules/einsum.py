"""The rule for Einstein summation, in every spelling that PyTorch takes."""

from collections import Counter
from collections.abc import Sequence

from flyweight.graph.identity import Field, Flow
from flyweight.graph.rules.contraction import contract
from flyweight.graph.step import Step, moved

_WHY = "enters an einsum that is not followed"


def einsum(step: Step) -> Flow:
    """Axes of one subscript are joined; what is not in the result is read.

    A subscript that is repeated in one tensor means its diagonal. Where a single tensor is summed
    over channels, or a diagonal lies across channels and something else, they are frozen.
    """
    flows: list[Flow] = list(step.arguments["tensors"])
    spelled = _spelled(str(step.arguments["equation"]), [len(flow.shape) for flow in flows])
    if spelled is None:
        return _frozen(step, flows)
    terms, out = spelled
    operands = [_diagonal(step, *pair) for pair in zip(flows, terms, strict=True)]
    if len(operands) == 1:
        _freeze_sums(step, *operands[0], out)
    return contract(step, operands, out)


def _frozen(step: Step, flows: Sequence[Flow]) -> Flow:
    for flow in flows:
        for found in flow.fields:
            step.freeze(found.ids, _WHY)
    return step.result()


def _spelled(equation: str, ranks: list[int]) -> tuple[list[list[int]], list[int]] | None:
    """Return a number for every axis of every tensor, and those of the result's axes.

    Axes of an ellipsis count from the right, as they are broadcast.

    Args:
        equation: For example `...ij,jk` or `bchw,dc->bdhw`.
        ranks: How many axes the tensors have.
    """
    sides = equation.replace(" ", "").split("->")
    terms = sides[0].split(",")
    if len(terms) != len(ranks):
        return None
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    if any(
        count < 0 or (count > 0 and "..." not in term)
        for term, count in zip(terms, hidden, strict=True)
    ):
        return None
    numbered = [_numbered(term, count) for term, count in zip(terms, hidden, strict=True)]
    most = max(
        (count for term, count in zip(terms, hidden, strict=True) if "..." in term), default=0
    )
    if len(sides) == 2:
        return numbered, _numbered(sides[1], most)
    counts = Counter(sides[0].replace(".", "").replace(",", ""))
    once = "".join(sorted(one for one, count in counts.items() if count == 1))
    return numbered, _numbered(f"...{once}", most)


def _numbered(term: str, hidden: int) -> list[int]:
    before, dots, after = term.partition("...")
    ellipsis = range(-hidden, 0) if dots else ()
    return [*map(ord, before), *ellipsis, *map(ord, after)]


def _diagonal(step: Step, flow: Flow, names: list[int]) -> tuple[Flow, list[int]]:
    """Return a tensor with one axis per name: the diagonal of axes of the same name."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) == len(names):
        return flow, names
    axes = {name: [axis for axis, one in enumerate(names) if one == name] for name in distinct}
    fields = []
    for place, name in enumerate(distinct):
        singles = [step.single(flow, axis) for axis in axes[name]] if len(axes[name]) > 1 else []
        known = [ids for ids in singles if ids is not None]
        if len(known) < len(singles):
            for ids in known:
                step.freeze(ids, _WHY)
        elif known:
            for ids in known[1:]:
                step.identities.join(known[0], ids)
            fields.append(Field((place,), known[0]))
    target = {axes[name][0]: place for place, name in enumerate(distinct) if len(axes[name]) == 1}
    passing = [found for found in flow.fields if set(found.axes) <= target.keys()]
    fields.extend(moved(found, target) for found in passing)
    shape = tuple(flow.shape[axes[name][0]] for name in distinct)
    return Flow(shape, tuple(fields), flow.parameter), distinct


def _freeze_sums(step: Step, flow: Flow, names: list[int], out: Sequence[int]) -> None:
    for axis, name in enumerate(names):
        found = flow.field_on(axis)
        if name not in out and found is not None:
            step.freeze(found.ids, _WHY)


def bilinear(step: Step) -> Flow:
    """A product of two tensors through a weight per output, as `nn.Bilinear` has it."""
    left, right, weight = (step.flow(name) for name in ("input1", "input2", "weight"))
    batch = range(-len(left.shape) + 1, 0)
    operands = [(left, [*batch, 1]), (right, [*batch, 2]), (weight, [3, 1, 2])]
    made = contract(step, operands, [*batch, 3])
    bias = step.arguments.get("bias")
    if isinstance(bias, Flow):
        step.join(step.single(made, -1), step.single(bias, 0))
    return made
