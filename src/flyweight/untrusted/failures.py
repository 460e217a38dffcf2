"""Failures of parsers: whatever one raises becomes the one error that its reader promises."""

from collections.abc import Iterator
from contextlib import contextmanager

from flyweight.printable import printable

_LONGEST = 200
_PANIC = "PanicException"  # Of a library in Rust; it is no Exception.


class LimitError(ValueError):
    """A file is larger, deeper or longer than what is read; the message says what."""


@contextmanager
def refusing(error: type[Exception], must: str, received: object, remedy: str) -> Iterator[None]:
    """Turn whatever the block raises into one line: the error that a reader promises.

    A parser of a file from outside can fail in ways that no list foresees: numbers that overflow,
    nesting that ends the recursion, keys of two types that do not compare. So there is no list.
    An error that already is of the promised class passes; of all others the reason is kept.

    Args:
        error: The promised class.
        must: Sentence that says what must hold: "A plan must be JSON."
        received: What was received, for example `'PATH'` in quotes or "text"; may be empty.
        remedy: Sentence that says what to do next.

    Raises:
        error: The block raised anything but an interruption.

    Example:
        >>> from flyweight.errors import PlanError
        >>> with refusing(PlanError, "A plan must be JSON.", "text", "Write it again."):
        ...     int(1e999)
        Traceback (most recent call last):
        flyweight.errors.PlanError: A plan must be JSON. Received text: cannot convert float \
infinity to integer. Write it again.
    """
    try:
        yield
    except error:
        raise
    except BaseException as failure:
        if not isinstance(failure, Exception) and type(failure).__name__ != _PANIC:
            raise  # An interruption is no failure of the file.
        given = f"Received {received}" if received else "Received"
        raise error(f"{must} {given}: {reason_of(failure)}. {remedy}") from failure


def reason_of(failure: BaseException) -> str:
    """Return why a file could not be read: one line of at most 200 characters, without a full stop.

    Example:
        >>> reason_of(KeyError("format")), reason_of(RecursionError("maximum recursion depth"))
        ("'format' is missing", 'it nests too deeply')
    """
    try:
        text = " ".join(_text_of(failure).split()).rstrip(".")
    except Exception:  # noqa: BLE001 - the text of an error can hold what cannot be converted
        text = ""
    text = printable(text)
    shown = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return shown or type(failure).__name__


def _text_of(failure: BaseException) -> str:
    if isinstance(failure, RecursionError):
        return "it nests too deeply"
    if isinstance(failure, MemoryError):
        return "it needs more memory than there is"
    if isinstance(failure, UnicodeDecodeError):
        return f"it is no {failure.encoding.upper()} text from byte {failure.start} on"
    if type(failure) is KeyError:
        return f"{failure} is missing"
    if isinstance(failure, OSError):
        return failure.strerror or str(failure)
    return str(failure)
