"""Sensitivity files of the originals: pickles of `{parameter: {ratio: loss}}`, read safely.

A pickle is a program that can call any function; `pickled_table` runs none of them.
"""

from collections.abc import Mapping
from pathlib import Path

from flyweight.errors import DataError
from flyweight.sensitivity.pickled_table import read_pickle
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_bytes

Losses = Mapping[str, Mapping[float, float]]
"""Parameter name to ratio to the loss of the metric, as a share of the baseline."""

_MOST_BYTES = 16 * 2**20


def read_losses(path: Path) -> dict[str, dict[float, float]]:
    """Return the losses in an original's file; ratios are rounded to six decimals.

    Raises:
        DataError: The file cannot be read, or holds something other than names, ratios and losses.
    """
    must = (
        "A sensitivity file must hold parameters, ratios and losses, as JSON or as the "
        "originals' pickle of them."
    )
    with refusing(DataError, must, f"'{path}'", "Scan again."):
        found = read_pickle(read_bytes(path, _MOST_BYTES))
        if not isinstance(found, dict):
            raise TypeError(f"a table of layers, not {type(found).__name__}")
        return {_name(name): _ratios(losses) for name, losses in found.items()}


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a parameter's name is a text, not {type(value).__name__}")
    return value


def _ratios(value: object) -> dict[float, float]:
    if not isinstance(value, dict):
        raise TypeError(f"a parameter has a table of losses, not {type(value).__name__}")
    numbers = (int, float)
    for number in (*value, *value.values()):
        if not isinstance(number, numbers) or isinstance(number, bool):
            raise TypeError(f"ratios and losses are numbers, not {type(number).__name__}")
    # Rounded, because the originals stored 0.1 + 0.2 and 0.3 as two ratios.
    return {round(float(ratio), 6): float(loss) for ratio, loss in sorted(value.items())}
