"""Every error a user can cause, on one screen.

FlyweightError
├── ConfigError       a config, an option or a name that cannot be meant
├── DataError         an image, an annotation file or a split
├── GraphError        a model that cannot be traced
├── PlanError         a plan, a ratio or a parameter name that does not fit its graph
├── CheckpointError   a file of weights that is damaged or belongs to another model
├── TrainingError     a training run that cannot go on
├── ExportError       an exported file that disagrees with the model
├── MeasureError      a measurement that cannot be made
└── FileError         a path that cannot be read or written

A message is a short letter on one line: what must hold, what was received, where, and what to do
next. The command line prints it without a traceback and exits with 2.
"""

import difflib
from collections.abc import Iterable


class FlyweightError(Exception):
    """Base of all errors that have their cause outside this package."""


class ConfigError(FlyweightError):
    """A config, an option or a name that cannot be meant."""


class DataError(FlyweightError):
    """An image, an annotation file or a split that cannot be used."""


class GraphError(FlyweightError):
    """A model that cannot be traced."""


class PlanError(FlyweightError):
    """A plan, a ratio or a parameter name that does not fit its graph."""


class CheckpointError(FlyweightError):
    """A file of weights that is damaged or belongs to another model."""


class TrainingError(FlyweightError):
    """A training run that cannot go on."""


class ExportError(FlyweightError):
    """An exported file that disagrees with the model it came from."""


class MeasureError(FlyweightError):
    """A measurement that cannot be made."""


class FileError(FlyweightError):
    """A path that cannot be read or written."""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return the sentence that names the candidate closest to `name`.

    Example:
        >>> nearest("lerning_rate", ["learning_rate", "epochs"])
        "Nearest: 'learning_rate'."
        >>> nearest("zzz", ["learning_rate", "epochs"])
        'Valid: epochs, learning_rate.'
    """
    known = sorted(set(candidates))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"Nearest: '{close[0]}'."
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"Valid: {', '.join(known[:12])}{more}."


def counted(count: int, noun: str) -> str:
    """Return how many of a thing whose plural ends in s.

    Example:
        >>> counted(1, "thread"), counted(1200, "layer")
        ('1 thread', '1,200 layers')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
