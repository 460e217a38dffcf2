"""States of metrics as JSON and back, so that an interrupted scan can be resumed."""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.errors import DataError
from flyweight.untrusted.failures import refusing

_PLAIN = (str, int, float, bool, type(None))


def pack(value: Any) -> Any:
    """Return `value` as JSON values: numbers, texts, arrays, tensors and nests of them.

    Raises:
        TypeError: It holds anything else.

    Example:
        >>> unpack(pack({"seen": (1, 2.5)}))
        {'seen': (1, 2.5)}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return {"tensor": pack(value.detach().cpu().numpy())}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        text = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": [value.dtype.str, list(value.shape), text]}
    if isinstance(value, tuple):
        return {"tuple": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    raise TypeError(f"a metric's state must be plain values, not {type(value).__name__}")


def unpack(value: Any) -> Any:
    """Return what `pack` made JSON of.

    Raises:
        DataError: `pack` did not write it.
    """
    must = "A saved part of a scan must be as it was written."
    with refusing(DataError, must, "other contents", "Remove it to measure that part again."):
        return _unpacked(value)


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    return _UNPACKED[kind](held)  # type: ignore[no-untyped-call]


def _array(held: Any) -> Any:
    kind, shape, text = held
    if np.dtype(kind).kind not in "biufU":
        raise ValueError(f"an array of type {kind}")
    return np.frombuffer(base64.b64decode(text), np.dtype(kind)).reshape(shape).copy()


_UNPACKED = {
    "array": _array,
    "tensor": lambda held: torch.as_tensor(_unpacked(held)),
    "tuple": lambda held: tuple(_unpacked(item) for item in held),
    "dict": lambda held: {_unpacked(key): _unpacked(item) for key, item in held},
}
