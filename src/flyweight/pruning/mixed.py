"""Groups whose channels an operation mixes: how many there are, and what exact cuts leave whole.

Figures come from the cost model; no network is built for them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from flyweight.errors import counted
from flyweight.graph.groups import ChannelGroup
from flyweight.graph.model_graph import ModelGraph

MATTERS = 0.1
"""Notes are made where mixed groups hold more than this share of what could be removed."""

_NAMES = {
    "layer_norm": "LayerNorm",
    "rms_norm": "RMSNorm",
    "group_norm": "GroupNorm",
    "softmax": "softmax",
    "log_softmax": "softmax",
    "linalg_vector_norm": "vector norm",
    "norm": "vector norm",
    "mean": "mean",
    "sum": "sum",
    "var": "variance",
    "var_mean": "variance",
}
_UNITS = {"params": "parameters", "macs": "multiply-adds", "size_bytes": "bytes"}


def mixed_groups(graph: ModelGraph) -> tuple[ChannelGroup, ...]:
    """Return the groups that can be cut, but not exactly."""
    return tuple(g for g in graph.groups.values() if g.reason is None and not g.exact)


def note_on_ratio(
    graph: ModelGraph, exact: Mapping[str, int], inexact: Mapping[str, int]
) -> str | None:
    """Return a note on a plan that leaves mixed groups whole, if they matter.

    Args:
        graph: The network.
        exact: Channels that stay, for the groups that an exact plan narrows.
        inexact: The same for the plan with `inexact=True`.
    """
    one, other = removed(graph, exact), removed(graph, inexact)
    if other - one <= MATTERS * other:
        return None
    return (
        f"{mixed_text(mixed_groups(graph))}: the plan removes {one:.0%} of the parameters, "
        f"inexact=True {other:.0%} (fw.repair corrects the normalisations then)."
    )


def note_on_limits(
    graph: ModelGraph,
    exact: Mapping[str, int],
    inexact: Mapping[str, int],
    quantity: str = "params",
) -> str | None:
    """Return a note on how far exact and other cuts can go, if mixed groups matter.

    Args:
        graph: The network.
        exact: Channels that stay at least, for the groups that exact plans can narrow.
        inexact: The same with `inexact=True`.
        quantity: What is counted: an attribute of `Cost`.
    """
    one, other = removed(graph, exact, quantity), removed(graph, inexact, quantity)
    if other - one <= MATTERS * other:
        return None
    unit = _UNITS.get(quantity, quantity)
    return (
        f"{mixed_text(mixed_groups(graph))}: exact cuts remove at most {one:.0%} of the {unit}, "
        f"inexact=True at most {other:.0%}."
    )


def note_on_curves(graph: ModelGraph, covered: Iterable[str]) -> str | None:
    """Return a note on the mixed groups that a scan did not cover, if they matter.

    Args:
        graph: The network.
        covered: Names of the groups that have a curve.
    """
    known = set(covered)
    left = [group for group in mixed_groups(graph) if group.name not in known]
    share = removed(graph, {group.name: 0 for group in left})
    if share <= MATTERS:
        return None
    has, them = ("has", "it") if len(left) == 1 else ("have", "them")
    return (
        f"{mixed_text(left)}, and {has} no curve: {share:.0%} of the parameters depend on {them}. "
        f"Scan {them} with inexact=True to cut {them} too."
    )


def mixed_text(groups: Iterable[ChannelGroup]) -> str:
    """Return how many groups stay whole, and by which operations they are mixed."""
    groups = list(groups)
    count = Counter(name for group in groups for name in _operations(group))
    kinds = [f"{name} ({number})" for name, number in count.most_common()]
    listed = " and ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))
    stay = "stays" if len(groups) == 1 else "stay"
    verb = "computes" if len(kinds) == 1 else "compute"
    return f"{counted(len(groups), 'group')} {stay} whole because {listed} {verb} across channels"


def removed(graph: ModelGraph, kept: Mapping[str, int], quantity: str = "params") -> float:
    """Return the share of a quantity that leaves when `kept` channels of some groups stay."""
    full = {name: group.size for name, group in graph.groups.items()}
    dense, small = graph.costs.price(full), graph.costs.price({**full, **kept})
    whole: int = getattr(dense, quantity)
    return 1 - getattr(small, quantity) / whole if whole else 0.0


def _operations(group: ChannelGroup) -> list[str]:
    """Return the operations that mix a group, without where they are."""
    found = [place.partition(" ")[0].removeprefix("_") for place in group.mixes]
    return list(dict.fromkeys(_NAMES.get(op, op) for op in found))
