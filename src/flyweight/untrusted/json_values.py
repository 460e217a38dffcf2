"""JSON from outside: bounded in depth and in the digits of its whole numbers."""

import json
import re
from typing import Any

from flyweight.untrusted.failures import LimitError

MOST_DEPTH = 100
"""Lists and mappings within each other."""
MOST_DIGITS = 40
"""Digits of a whole number: enough for one of 128 bits, and every float can hold it."""

_LONG_BYTES, _LONG_TEXT = re.compile(rb"[0-9]{41}"), re.compile(r"[0-9]{41}")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Python's parser takes as many digits and levels as there are; whatever uses such values then
    fails in its own way.

    Args:
        text: The text, or its bytes in UTF-8, UTF-16 or UTF-32.

    Raises:
        LimitError: It nests deeper than `MOST_DEPTH`, or a whole number has more than `MOST_DIGITS`
            digits.
        ValueError: It is no JSON.
    """
    try:
        value = json.loads(text, **_hooks(text))
    except RecursionError as error:
        raise LimitError(_too_deep()) from error
    _require_shallow(text, value)
    return value


def _hooks(text: str | bytes) -> dict[str, Any]:
    # A function for every number takes longer than the parser itself, so it is given only where
    # there are many digits in a row, which may be a float or a part of a name.
    found = _LONG_BYTES.search(text) if isinstance(text, bytes) else _LONG_TEXT.search(text)
    return {"parse_int": _whole_number} if found or _is_wide(text) else {}


def _is_wide(text: str | bytes) -> bool:
    return isinstance(text, bytes) and b"\0" in text[:4]  # UTF-16 or UTF-32


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise LimitError(f"a whole number of {len(text):,} digits, where {MOST_DIGITS} are read")
    return int(text)


def _require_shallow(text: str | bytes, value: Any) -> None:
    openings = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else 0
    if isinstance(text, str):
        openings = text.count("[") + text.count("{")
    if openings <= MOST_DEPTH:
        return
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if type(outer) is dict else outer)
            if type(item) is list or type(item) is dict
        ]
        if not level:
            return
    raise LimitError(_too_deep())


def _too_deep() -> str:
    return f"it nests deeper than the {MOST_DEPTH} levels that are read"
