"""What a person sees of a run while it lasts, on stderr: a bar, or plain lines in a file."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Protocol, Self, TypeVar

Item = TypeVar("Item")


def progress_over(
    items: Iterable[Item], label: str, total: int | None, *, show: bool
) -> Iterator[Item]:
    """Yield `items` under a bar on stderr, if one is wanted and stderr is a terminal."""
    if not show or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, label, total=total, console=Console(stderr=True), transient=True)


class Display(Protocol):
    """Shows how far a run is."""

    def step(self, done: int, loss: float, rate: float) -> None:
        """Show the run after `done` steps."""

    def say(self, line: str) -> None:
        """Show one line that stays."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""


class Silence:
    """Shows nothing: every process but the first."""

    def step(self, done: int, loss: float, rate: float) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End."""


class Lines:
    """One line every `every` steps."""

    def __init__(self, start: int, steps: int, every: int) -> None:
        self.start = start
        self.steps = steps
        self.every = every
        self.began = time.monotonic()

    def step(self, done: int, loss: float, rate: float) -> None:
        """Write a line if one is due."""
        if done % self.every == 0 or done == self.steps:
            per_step = (time.monotonic() - self.began) / max(done - self.start, 1)
            self.say(progress_line(done, self.steps, loss, rate, per_step * (self.steps - done)))

    def say(self, line: str) -> None:
        """Write `line`."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        """Begin to count time."""
        self.began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        """End."""


class Bar:
    """A bar with the time left."""

    def __init__(self, start: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        self.task = self.bar.add_task("", total=steps, completed=start)

    def step(self, done: int, loss: float, rate: float) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=done, description=f"loss {loss:.4g}  lr {rate:#.2g}")

    def say(self, line: str) -> None:
        """Write `line` above the bar."""
        self.bar.console.print(line, markup=False, highlight=False)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End drawing."""
        self.bar.stop()


def progress_line(done: int, steps: int, loss: float, rate: float, left_seconds: float) -> str:
    """Return one line on how far a run is.

    Example:
        >>> progress_line(120, 1000, 12.34, 0.001, 200.4)
        'step 120/1000  loss 12.34  lr 0.0010  eta 0:03:20'
    """
    eta = timedelta(seconds=int(left_seconds))
    return f"step {done}/{steps}  loss {loss:.4g}  lr {rate:#.2g}  eta {eta}"


def open_display(start: int, steps: int, every: int, *, first: bool) -> Display:
    """Return what fits stderr: a bar in a terminal, lines elsewhere; nothing but for `first`."""
    if not first:
        return Silence()
    return Bar(start, steps) if sys.stderr.isatty() else Lines(start, steps, every)
