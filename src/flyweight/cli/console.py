"""Output of the command line: results on stdout, everything else on stderr."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.on_demand import load

if TYPE_CHECKING:
    from rich.text import Text

# rich is loaded when something is drawn, so that help texts and error messages do not wait for it.
_CONSOLE = "rich.console:Console"


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def show_styled(draw: "Callable[..., Text]") -> None:
    """Print a result that has colours on a terminal and none in a file or a pipe.

    Args:
        draw: Returns the text; called with the `width` of the output in columns.
    """
    console = load(_CONSOLE)(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(draw(width=console.width))


def show_json(value: Any) -> None:
    """Print a result as strict JSON; numbers that are not finite become null."""
    show(json.dumps(_plain(value), indent=2, allow_nan=False))


def say(text: str) -> None:
    """Print a note on stderr, apart from the results."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return metrics as aligned lines, in percent.

    Example:
        >>> print(metrics_table({"map_50": 0.5, "ap_50/cat": 0.25}))
        map_50      50.00 %
        ap_50/cat   25.00 %
    """
    width = max((len(name) for name in metrics), default=0)
    return "\n".join(f"{name:<{width}}  {100 * value:6.2f} %" for name, value in metrics.items())


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns: the first is left-aligned, the others are right-aligned.

    Example:
        >>> print(columns([("group", "width"), ("a", "8")]))
        group  width
        a          8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
