"""Tree of a network's channel groups for a terminal, with colours if the terminal has them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.text import Text

from flyweight.errors import counted
from flyweight.graph import ChannelGroup, ModelGraph
from flyweight.graph.groups import Member

STATES = {"prunable": "green", "frozen": "yellow", "inexact": "magenta"}

_ROLES = {"produces": "makes", "consumes": "reads", "follows": "follows", "orders": "orders"}
_FEW = 4  # lists of so many members are never shortened
_SHOWN = {"produces": 3, "consumes": 3, "follows": 0, "orders": 1}
_INDENT = " " * 10


def group_tree(graph: ModelGraph, *, width: int, complete: bool = False) -> Text:
    """Return every group: number of channels, state, reason, and the parameters that hold them.

    Args:
        graph: The network.
        width: Columns of the terminal. Names are never cut, so longer lines are possible.
        complete: Show all members; otherwise long lists are shortened.
    """
    lines = [Text("channels  state     group", style="dim")]
    for group in graph.groups.values():
        state = state_of(group)
        head = Text(f"{group.size:8,}  ")
        head.append(f"{state:<10}", style=STATES[state]).append(group.name, style="bold")
        each = max((member.repeat for member in group.producers()), default=1)
        if each > 1:
            head.append(f"  each {each} wide", style="dim")
        lines.append(head)
        reason = reason_of(group)
        if reason:
            text = f"because {'it ' if state == 'frozen' else ''}{reason}"
            branch = f"{_INDENT}│ "
            for line in wrap(text, max(20, width - len(branch)), break_on_hyphens=False):
                lines.append(Text.assemble((branch, "dim"), (line, STATES[state])))
        lines += _members(group, graph, width, complete=complete)
    return Text("\n").join([*lines, Text(), *_totals(graph)])


def state_of(group: ChannelGroup) -> str:
    """Return one of `STATES`: whether channels of `group` can be removed, and exactly."""
    if group.reason is not None:
        return "frozen"
    return "prunable" if group.exact else "inexact"


def reason_of(group: ChannelGroup) -> str | None:
    """Return why channels of `group` cannot be removed exactly; None if they can."""
    if group.reason is not None:
        return group.reason
    if group.mixes:
        more = f" and {len(group.mixes) - 1} more" if len(group.mixes) > 1 else ""
        return f"its channels are mixed by {group.mixes[0]}{more}"
    return None


def _members(
    group: ChannelGroup, graph: ModelGraph, width: int, *, complete: bool
) -> Iterator[Text]:
    members = sorted(group.members, key=lambda member: list(_ROLES).index(member.role))
    shown = members if complete or len(members) <= _FEW else _first_members(members)
    hidden = len(members) - len(shown)
    names = max((len(member.tensor) for member in shown), default=0)
    for place, member in enumerate(shown, start=1):
        last = place == len(shown) and not hidden
        branch = f"{_INDENT}{'└' if last else '├'} {_ROLES[member.role]:<7} "
        shape = "x".join(map(str, graph.tensors[member.tensor].shape))
        where = f"axis {member.axis}  {shape}"
        gap = "  ".ljust(names - len(member.tensor) + 2)
        if len(branch) + names + 2 + len(where) > width:
            gap = f"\n{_INDENT}{' ' if last else '│'}".ljust(len(branch) + 1)
        yield Text.assemble((branch, "dim"), member.tensor, (gap + where, "dim"))
    if hidden:
        yield Text(f"{_INDENT}└ … and {hidden} more", style="dim")


def _first_members(members: Sequence[Member]) -> list[Member]:
    seen: Counter[str] = Counter()
    kept = []
    for member in members:
        seen[member.role] += 1
        if seen[member.role] <= _SHOWN[member.role]:
            kept.append(member)
    return kept


def _totals(graph: ModelGraph) -> list[Text]:
    states = Counter(state_of(group) for group in graph.groups.values())
    parts = [f"{states[state]} {state}" for state in STATES]
    cost = graph.cost()
    channels = sum(group.size for group in graph.groups.values())
    return [
        Text(f"{counted(len(graph.groups), 'group')}: {', '.join(parts)}"),
        Text(
            f"{counted(channels, 'channel')}, {counted(cost.params, 'parameter')}, "
            f"{cost.macs / 1e9:.4f} GMACs"
        ),
    ]
