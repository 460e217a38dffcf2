"""Errors that a user can cause; all of them are listed here.

FlyweightError
├── ConfigError       a config, an option or a name is unknown or invalid
├── DataError         an image, an annotation file or a split cannot be used
├── GraphError        a model cannot be traced
├── PlanError         a plan, a ratio, a budget or a parameter name does not fit the network
├── CheckpointError   a file of weights is damaged or belongs to another model
├── TrainingError     a training run cannot continue
├── ExportError       an exported file disagrees with the model
├── MeasureError      a measurement cannot be made
└── FileError         a path cannot be read or written

An error message is one line: what must hold, what was received, where, and what to do next. The
command line prints it without a traceback and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class FlyweightError(Exception):
    """Base class of all errors that a user can cause."""

    def __str__(self) -> str:
        # What was received can hold line breaks; the message is one line all the same.
        return " ".join(super().__str__().splitlines())


class ConfigError(FlyweightError):
    """A config, an option or a name is unknown or invalid."""


class DataError(FlyweightError):
    """An image, an annotation file or a split cannot be used."""


class GraphError(FlyweightError):
    """A model cannot be traced."""


class PlanError(FlyweightError):
    """A plan, a ratio, a budget or a parameter name does not fit the network."""


class CheckpointError(FlyweightError):
    """A file of weights is damaged or belongs to another model."""


class TrainingError(FlyweightError):
    """A training run cannot continue."""


class ExportError(FlyweightError):
    """An exported file disagrees with the model that it was made from."""


class MeasureError(FlyweightError):
    """A measurement cannot be made."""


class FileError(FlyweightError):
    """A path cannot be read or written."""


_MOST_COMPARED = 200
"""Characters of a name that are compared: the time grows with the square of their number."""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return a sentence that names the candidate closest to `name`, or lists the candidates.

    Example:
        >>> nearest("lerning_rate", ["learning_rate", "epochs"])
        "Nearest: 'learning_rate'."
        >>> nearest("zzz", ["learning_rate", "epochs"])
        'Valid: epochs, learning_rate.'
    """
    name, known = name[:_MOST_COMPARED], sorted(set(candidates))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"Nearest: '{close[0]}'."
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"Valid: {', '.join(known[:12])}{more}."


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, whose plural ends in s.

    Example:
        >>> counted(1, "thread"), counted(1200, "layer")
        ('1 thread', '1,200 layers')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
