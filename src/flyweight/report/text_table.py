"""Tables of plain text with aligned columns."""

from collections.abc import Mapping, Sequence


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, the first to the left, the others to the right.

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


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return metrics as aligned lines, in percent.

    Example:
        >>> print(metrics_table({"map_50": 0.5, "ap_50/cat": 0.25}))
        map_50      50.00 %
        ap_50/cat   25.00 %
    """
    width = max((len(name) for name in metrics), default=0)
    return "\n".join(f"{name:<{width}}  {100 * value:6.2f} %" for name, value in metrics.items())
