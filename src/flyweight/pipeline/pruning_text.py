"""Texts about a plan: a table of its savings, and notes on slow widths."""

from flyweight.errors import counted
from flyweight.graph import Cost
from flyweight.pruning import PruningPlan
from flyweight.report.text_table import columns

_PRICES = (
    ("GMACs", 1e9, "macs"),
    ("parameters (M)", 1e6, "params"),
    ("size (MiB)", 2**20, "size_bytes"),
)
_BLOCK = 8


def cost_table(before: Cost, after: Cost, made: PruningPlan) -> str:
    """Return a plan's widths and costs; the last line is worded as the original tools printed it.

    Args:
        before: Cost of the dense network.
        after: Cost of the pruned one.
        made: The plan.
    """
    rows = [("group", "before", "after")]
    rows += [(name, str(g.channels), str(len(g.keep))) for name, g in made.groups.items()]
    prices = [("", "before", "after", "change")]
    for label, unit, key in _PRICES:
        old, new = getattr(before, key), getattr(after, key)
        change = f"{100 * (new / old - 1):+.2f} %"
        prices.append((label, f"{old / unit:,.4f}", f"{new / unit:,.4f}", change))
    ratio = (before.macs - after.macs) / before.macs
    line = f"FLOPs -{ratio}; total FLOPs: {float(before.macs)}; pruned FLOPs: {float(after.macs)}"
    return f"{columns(rows)}\n\n{columns(prices)}\n\n{line}"


def plan_notes(made: PruningPlan) -> tuple[str, ...]:
    """Return the notes of a plan, and a hint where many widths are slow on runtimes."""
    notes = [f"note: {note}" for note in made.notes]
    odd = odd_widths(made)
    if 4 * odd > len(made.groups):
        notes.append(
            f"hint: {odd} of {counted(len(made.groups), 'pruned layer')} keep a number of channels "
            f"that is no multiple of {_BLOCK}, which runtimes compute slowly; "
            "-o prune.round_to=16 keeps multiples"
        )
    return tuple(notes)


def odd_widths(made: PruningPlan) -> int:
    """Return how many pruned groups keep a number of channels that is no multiple of 8."""
    return sum(len(group.keep) % _BLOCK > 0 for group in made.groups.values())
