"""Stopping of long work by a signal: Ctrl-C, SIGTERM or SIGHUP.

Python turns Ctrl-C into a `KeyboardInterrupt`. The command line treats SIGTERM (`docker stop`,
schedulers) and SIGHUP (a closed terminal) alike, so that every `finally` runs and no file is left
half-written. Work that can save itself ends its present step first: see `Stopping`.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_LIKE_CTRL_C = ("SIGTERM", "SIGHUP")
_ASKED = b"\nstopping after this step; once more stops at once, without saving\n"


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; a handler of signals."""
    raise KeyboardInterrupt


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt until the block ends.

    A signal that the program ignores stays ignored, as SIGHUP under `nohup`, and a handler of its
    own stays. Does nothing outside of the main thread, where no handlers can be set.
    """
    changed = {}
    if threading.current_thread() is threading.main_thread():
        for name in _LIKE_CTRL_C:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                changed[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, before in changed.items():
            signal.signal(number, before)


class Stopping:
    """Lets work end its present step when it is asked to stop; a context manager.

    Within the block, the first signal that would raise a KeyboardInterrupt sets `asked` instead.
    The work reads it after each step, saves itself and leaves the block, which then raises the
    KeyboardInterrupt. A second signal raises it at once.

    Handlers of the program's own, and work outside of the main thread, are left alone.

    Attributes:
        asked: Whether the work should stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to wait for signals."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", *_LIKE_CTRL_C):
                number = getattr(signal, name, None)
                if number is None:
                    continue
                if signal.getsignal(number) in (signal.default_int_handler, interrupt):
                    self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Give the signals back; raise the KeyboardInterrupt that was put off."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        if self.asked and (kind is None or issubclass(kind, RuntimeError)):
            # A RuntimeError: the signal went to all processes, and a worker that loads images
            # has ended by it.
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not through a Python stream, which may be in the middle of a write.
        os.write(2, _ASKED)
