"""Float islands: places between integer layers where a runtime computes in float numbers."""

from collections.abc import Iterable, Mapping, Sequence

from flyweight.runtimes.protocol import OptimizedOperator

_INTEGER = "int8"
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear", "FakeQuantize"})
"""Kinds that an island has at its borders, and that are none by themselves."""
_Edges = Mapping[str, set[str]]


def islands_of(
    operators: Sequence[OptimizedOperator],
) -> tuple[tuple[OptimizedOperator, ...], ...]:
    """Return the connected groups of float operators that lie between operators on integers.

    Args:
        operators: The runtime's graph, in order.
    """
    maker = {tensor: one.name for one in operators for tensor in one.makes}
    before: dict[str, set[str]] = {
        one.name: {maker[name] for name in one.reads if name in maker} for one in operators
    }
    after: dict[str, set[str]] = {one.name: set() for one in operators}
    for name, sources in before.items():
        for source in sources:
            after[source].add(name)
    integers = {
        one.name for one in operators if one.precision == _INTEGER and one.kind not in _ROUNDING
    }
    between = _reached(integers, after) & _reached(integers, before)
    members = {
        one.name: one
        for one in operators
        if one.name in between and one.name not in integers and one.precision.find("float") >= 0
    }
    groups = _connected(members, before, after)
    real = (tuple(one for one in group if one.kind not in _ROUNDING) for group in groups)
    return tuple(group for group in real if group)


def _reached(starts: Iterable[str], edges: _Edges) -> set[str]:
    """Return what lies on the way from any of `starts`, themselves only where a way leads there."""
    seen: set[str] = set()
    waiting = [name for start in starts for name in edges[start]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(edges[name])
    return seen


def _connected(
    members: Mapping[str, OptimizedOperator], before: _Edges, after: _Edges
) -> list[list[OptimizedOperator]]:
    groups, left = [], dict(members)
    while left:
        waiting, group = [next(iter(left))], []
        while waiting:
            name = waiting.pop()
            if name in left:
                group.append(left.pop(name))
                waiting.extend((before[name] | after[name]) & left.keys())
        groups.append(group)
    return groups
