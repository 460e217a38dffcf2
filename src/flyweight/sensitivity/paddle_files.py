"""Sensitivity files of the originals: pickles of `{parameter: {ratio: loss}}`, read safely.

A pickle can name any function to be called. Here it can only name the few that NumPy's numbers
need, and those are replaced by functions that return a plain float.
"""

import io
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flyweight.errors import DataError

Losses = Mapping[str, Mapping[float, float]]
"""Parameter name to ratio to the loss of the metric, as a share of the baseline."""


def read_losses(path: Path) -> dict[str, dict[float, float]]:
    """Return the losses in an original's file; ratios are rounded to six decimals.

    Raises:
        DataError: The file cannot be read, or holds something other than names, ratios and losses.
    """
    try:
        found = _Reader(io.BytesIO(path.read_bytes())).load()
        return {_name(name): _ratios(losses) for name, losses in found.items()}
    except (
        *(OSError, pickle.UnpicklingError, AttributeError, EOFError, TypeError, ValueError),
        *(KeyError, IndexError, struct.error, ImportError, MemoryError, RecursionError),
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            "A sensitivity file must hold parameters, ratios and losses, as JSON or as the "
            f"originals' pickle of them. Received '{path}': {reason}. Scan again."
        ) from error


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


class _Dtype:
    """Replaces NumPy's type of a number; stores what the pickle contains for it."""

    def __init__(self, code: str = "", *_: Any) -> None:
        self.code = code.lstrip("<>=|")
        self.order = ">" if code.startswith(">") else "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(kind: Any, data: Any = b"") -> float:
    """Return the number of a NumPy scalar."""
    codes = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}
    raw = data.encode("latin1") if isinstance(data, str) else data
    (value,) = struct.unpack(kind.order + codes[kind.code], raw)
    return float(value)


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    # Python 2 and protocol 2 store bytes in this way.
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of one of the few allowed names."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a table never needs")
        return _ALLOWED[module, name]
