"""Message of the command line after an interruption, with the way to continue."""

import shlex
from collections.abc import Sequence

_RESUME = frozenset({"-r", "--resume"})
_RESUMED = frozenset({"train", "prune"})
"""Commands that continue with `-r`."""
_REPEATED = frozenset({"demo", "sensitivity"})
"""Commands that continue what the same command has begun."""
_ONLY_PRINTS = frozenset({"--dry-run", "-P", "--print-params", "--print_params", "--merge"})


def how_to_continue(arguments: Sequence[str]) -> str:
    """Return one line that says that the command was stopped, and how to continue it.

    Example:
        >>> how_to_continue(["train", "-c", "demo_digits"])
        'stopped; continue with -r: flyweight train -c demo_digits -r'
        >>> how_to_continue(["demo", "--fresh"])
        'stopped; continue with the same command: flyweight demo'
        >>> how_to_continue(["eval", "-c", "demo_digits"])
        'stopped; start again with: flyweight eval -c demo_digits'
    """
    name = next((one for one in arguments if not one.startswith("-")), "")
    given = [one for one in arguments if one not in _RESUME]
    if _ONLY_PRINTS.isdisjoint(given):
        if name in _RESUMED:
            return f"stopped; continue with -r: {_shown([*given, '-r'])}"
        if name in _REPEATED or (name == "bench" and "--layers" in given):
            # Otherwise everything would begin again.
            same = [one for one in given if one != "--fresh"]
            return f"stopped; continue with the same command: {_shown(same)}"
    return f"stopped; start again with: {_shown(arguments)}"


def _shown(arguments: Sequence[str]) -> str:
    return shlex.join(["flyweight", *arguments])
