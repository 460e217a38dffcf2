"""Output of the command line: results on stdout, everything else on stderr."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.on_demand import load
from flyweight.printable import printable
from flyweight.processors import busy_note

if TYPE_CHECKING:
    from rich.text import Text

# rich is loaded when something is drawn, so that help texts and error messages do not wait for it.
_CONSOLE = "rich.console:Console"


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(printable(text.rstrip("\n")) + "\n")


def show_styled(draw: "Callable[..., Text]") -> None:
    """Print a result that has colours on a terminal and none in a file or a pipe.

    Args:
        draw: Returns the text; called with the `width` of the output in columns.
    """
    console = load(_CONSOLE)(file=sys.stdout, highlight=False, soft_wrap=True)
    text = draw(width=console.width)
    shown = printable(text.plain)
    # Where something is written out, its length changes and the colours would be out of place.
    console.print(text if shown == text.plain else shown, markup=False)


def show_json(value: Any) -> None:
    """Print a result as strict JSON; numbers that are not finite become null."""
    show(json.dumps(_plain(value), indent=2, allow_nan=False))


def say(text: str) -> None:
    """Print a note on stderr, apart from the results."""
    sys.stderr.write(printable(text.rstrip("\n")) + "\n")
    sys.stderr.flush()


def note_busy_machine() -> None:
    """Print one line on stderr if other programs keep the processors busy; before long work."""
    note = busy_note()
    if note is not None:
        say(note)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
