"""Progress protocol: reports of long work to its caller.

Everything that takes long accepts `progress: Progress | bool`: an object with the methods of
`Progress`, True for the display in the terminal, or False for nothing. This module imports neither
torch nor rich, so that every layer can use it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Protocol, TypeVar

from flyweight.on_demand import load

Item = TypeVar("Item")


class ProgressTask(Protocol):
    """One piece of work, between `Progress.start` and `finish`."""

    def update(self, done: float, numbers: Mapping[str, float] | None = None) -> None:
        """Report the state of the work.

        Args:
            done: The amount that is done, in the units of `total`; not an increment.
            numbers: Current values to show, by name, for example `{"loss": 0.5, "lr": 0.01}`.
        """

    def finish(self) -> None:
        """Report that the work has ended, completed or not. A second call does nothing."""


class Progress(Protocol):
    """Receives reports of progress. Works can nest: an evaluation reports inside a training."""

    def start(
        self,
        label: str,
        total: float | None = None,
        *,
        done: float = 0,
        lines_every: int | None = None,
    ) -> ProgressTask:
        """Report that a piece of work begins.

        Args:
            label: What is done, in one or two words.
            total: The amount of work: a whole number of items, or a fractional amount of which
                only the share matters. None where it is unknown.
            done: The amount that an earlier, interrupted run has completed.
            lines_every: Where nothing can be drawn (a file, a pipe), write one line after every so
                many units; None writes a line only where there was none for half a minute.
        """
        ...

    def note(self, text: str) -> None:
        """Show one line of text that stays visible."""


class SilentTask:
    """A piece of work that is not shown."""

    def update(self, done: float, numbers: Mapping[str, float] | None = None) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Silent:
    """Progress that is not shown: the default of every function."""

    def start(
        self,
        label: str,
        total: float | None = None,
        *,
        done: float = 0,
        lines_every: int | None = None,
    ) -> SilentTask:
        """Return a task that shows nothing."""
        return SilentTask()

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT: Progress = Silent()

# The display is imported when it is used, because it needs rich.
_TERMINAL = "flyweight.terminal:TERMINAL"


def progress_of(wanted: Progress | bool) -> Progress:
    """Return the progress that a caller requested: True is the terminal's, False is `SILENT`."""
    if wanted is True:
        terminal: Progress = load(_TERMINAL)
        return terminal
    return SILENT if wanted is False else wanted


def progress_over(
    items: Iterable[Item],
    label: str,
    progress: Progress,
    total: int | None = None,
    *,
    lines_every: int | None = None,
) -> Iterator[Item]:
    """Yield `items` and report each one that the consumer has finished with.

    Args:
        items: What is worked on.
        label: What is done with them.
        progress: Receives the reports.
        total: How many items there are; by default `len(items)` where that is known.
        lines_every: See `Progress.start`.

    Example:
        >>> list(progress_over("abc", "spell", SILENT))
        ['a', 'b', 'c']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    task = progress.start(label, total, lines_every=lines_every)
    try:
        for done, item in enumerate(items, 1):
            yield item
            task.update(done)
    finally:
        task.finish()
