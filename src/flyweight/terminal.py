"""Progress in the terminal: bars with the time left on stderr; plain lines in files and pipes."""

import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flyweight.on_demand import load
from flyweight.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import Task, TaskID

# Loaded when the first bar is drawn: commands that only write notes do not wait for rich.
_RICH = {
    "BarColumn": "rich.progress:BarColumn",
    "Bars": "rich.progress:Progress",
    "Console": "rich.console:Console",
    "TextColumn": "rich.progress:TextColumn",
    "TimeRemainingColumn": "rich.progress:TimeRemainingColumn",
}

# Formats of numbers by name. A learning rate keeps its zeros, so that the line does not jump.
_FORMATS = {"lr": "#.2g", "epoch": ".2f"}
_DEFAULT_FORMAT = ".4g"

QUIET_SECONDS = 30.0
"""Where nothing can be drawn, a line is written after so many seconds without one."""


class TerminalProgress:
    """Progress on stderr; see `flyweight.progress.Progress`.

    Where stderr is a terminal it draws bars. Elsewhere it writes the notes, lines for the tasks
    that ask for them, and a line on the innermost task whenever it has written nothing for
    `QUIET_SECONDS`.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._open: list[LinesTask] = []
        self._ended = threading.Event()
        self._wrote = 0.0

    def start(
        self,
        label: str,
        total: float | None = None,
        *,
        done: float = 0,
        lines_every: int | None = None,
    ) -> "BarTask | LinesTask":
        """Begin a task; see `flyweight.progress.Progress.start`."""
        if self._bars is None and not sys.stderr.isatty():
            return self._open_lines(LinesTask(self, label, total, done, lines_every))
        if self._bars is None:
            # A bar of training stays visible when it is complete; others vanish.
            self._bars = _bars(transient=lines_every is None)
            self._bars.start()
        identity = self._bars.add_task(printable(label), total=total, numbers="", amount="")
        task = BarTask(self, self._bars, identity)
        task.update(done)
        return task

    def note(self, text: str) -> None:
        """Write one line, above the bars if there are any."""
        if self._bars is None:
            self.write(text, time.monotonic())
        else:
            self._bars.console.print(printable(text), markup=False, highlight=False)

    def write(self, line: str, now: float) -> None:
        """Write one line where nothing is drawn, at the time `now` of the monotonic clock."""
        self._wrote = now
        sys.stderr.write(printable(line.rstrip("\n")) + "\n")
        sys.stderr.flush()

    def _open_lines(self, task: "LinesTask") -> "LinesTask":
        if not self._open:
            # A step can last for minutes, so lines cannot depend on updates alone.
            self._wrote, self._ended = task.began, threading.Event()
            threading.Thread(target=self._watch, args=(self._ended,), daemon=True).start()
        self._open.append(task)
        return task

    def _watch(self, ended: threading.Event) -> None:
        wait = QUIET_SECONDS
        while not ended.wait(wait):
            now = time.monotonic()
            wait = QUIET_SECONDS - (now - self._wrote)
            tasks = self._open[-1:]
            if wait <= 0 and tasks:
                tasks[0].write(now)
            if wait <= 0:
                wait = QUIET_SECONDS

    def end_lines(self, task: "LinesTask") -> None:
        """Forget a finished task."""
        if task in self._open:
            self._open.remove(task)
        if not self._open:
            self._ended.set()

    def end_drawing(self, ended: "TaskID") -> None:
        """Remove a finished task's bar; the last one ends the drawing."""
        if self._bars is None:
            return
        if len(self._bars.tasks) > 1:
            self._bars.remove_task(ended)
            return
        self._bars.stop()
        self._bars = None


TERMINAL = TerminalProgress()
"""The one that everything shares, so that work within other work adds a bar to the same display."""


class BarTask:
    """A task that is drawn as a bar.

    Attributes:
        bar: rich's view of the task.
    """

    def __init__(self, owner: TerminalProgress, bars: "Bars", identity: "TaskID") -> None:
        self._owner, self._bars, self._identity = owner, bars, identity
        self._finished = False
        self.bar: Task = next(task for task in bars.tasks if task.id == identity)

    def update(self, done: float, numbers: Mapping[str, float] | None = None) -> None:
        """Move the bar and change the numbers beside it."""
        amount = _amount(done, self.bar.total)
        self._bars.update(self._identity, completed=done, amount=amount)
        if numbers is not None:
            self._bars.update(self._identity, numbers=printable(numbers_text(numbers)))

    def finish(self) -> None:
        """Remove the bar."""
        if not self._finished:
            self._finished = True
            self._owner.end_drawing(self._identity)


class LinesTask:
    """A task that writes one line after every so many units.

    Attributes:
        began: When it began, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        owner: TerminalProgress,
        label: str,
        total: float | None,
        done: float,
        every: int | None,
    ) -> None:
        self._owner = owner
        self._label, self._total, self._first, self._every = label, total, done, every
        self._done, self._numbers = done, dict[str, float]()
        self.began = time.monotonic()

    def update(self, done: float, numbers: Mapping[str, float] | None = None) -> None:
        """Write a line if one is due."""
        self._done = done
        if numbers is not None:
            self._numbers = dict(numbers)
        if self._every is not None and (not done % self._every or done == self._total):
            self.write(time.monotonic())

    def write(self, now: float) -> None:
        """Write a line, at the time `now` of the monotonic clock."""
        left = None
        if self._total is not None and self._done > self._first:
            per_unit = (now - self.began) / (self._done - self._first)
            left = per_unit * (self._total - self._done)
        line = progress_line(self._label, self._done, self._total, self._numbers, left)
        self._owner.write(line, now)

    def finish(self) -> None:
        """Write nothing more: the last line is written."""
        self._owner.end_lines(self)


def progress_line(
    label: str,
    done: float,
    total: float | None,
    numbers: Mapping[str, float],
    left_seconds: float | None = None,
) -> str:
    """Return one line on the state of a task.

    Example:
        >>> progress_line("step", 120, 1000, {"loss": 12.34, "lr": 0.001}, 200.4)
        'step 120/1000  loss 12.34  lr 0.0010  eta 0:03:20'
    """
    parts = [f"{label} {_amount(done, total)}"]
    if numbers:
        parts.append(numbers_text(numbers))
    if left_seconds is not None:
        parts.append(f"eta {timedelta(seconds=int(left_seconds))}")
    return "  ".join(parts)


def numbers_text(numbers: Mapping[str, float]) -> str:
    """Return numbers with their names on one line.

    Example:
        >>> numbers_text({"loss": 12.345678, "lr": 0.1})
        'loss 12.35  lr 0.10'
    """
    return "  ".join(
        f"{name} {value:{_FORMATS.get(name, _DEFAULT_FORMAT)}}" for name, value in numbers.items()
    )


def _amount(done: float, total: float | None) -> str:
    """Return counts of items as `3/8` and shares of an amount of work as percent."""
    if total is None:
        return f"{done:g}"
    if isinstance(total, int):
        return f"{done:g}/{total}"
    return f"{done / total:.0%}" if total else "100%"


def _bars(*, transient: bool) -> "Bars":
    rich: dict[str, Any] = {name: load(reference) for name, reference in _RICH.items()}
    text = rich["TextColumn"]
    bars: Bars = rich["Bars"](
        text("{task.description}", markup=False),
        text("{task.fields[amount]}", markup=False),
        rich["BarColumn"](),
        text("{task.fields[numbers]}", markup=False),
        text("eta"),
        rich["TimeRemainingColumn"](),
        console=rich["Console"](stderr=True),
        transient=transient,
        redirect_stdout=False,
    )
    return bars
