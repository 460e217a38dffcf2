"""Text that is safe to show: control characters are written out instead of being obeyed."""

import re

# Control characters, and those that reorder what stands beside them. A line break is one, too:
# callers that show several lines split them first.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return `text` with control characters and halves of characters written as escapes.

    Names come from files and folders of anyone. A terminal obeys some characters in them: they can
    rename its window, erase what was written, or reorder a line. Tabs and line breaks stay.

    Example:
        >>> printable("\x1b[2Jcat\x07")
        '\\x1b[2Jcat\\x07'
    """
    return _CONTROLS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
