"""Layout of a folder, as recognition finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyweight.data.recognition.splits import chosen, unused


@dataclass(frozen=True)
class Found:
    """A reader that fits a folder, and its settings.

    Attributes:
        settings: Keys of `DataConfig` apart from `root`; `val` is absent where the training split
            must be divided, and `train` too where only `listed` has the images.
        listed: Lines of a list file, for images that no list of the set names. Each split has its
            own lines; "all" has those of a set without splits.
        others: Names of splits that are not used.
        notes: What the user should know about the choice, one sentence each.
    """

    settings: Mapping[str, Any]
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """The layout, a value of `DataConfig.format`."""
        return str(self.settings["format"])


def of_splits(
    settings: Mapping[str, Any], splits: Mapping[str, str], notes: tuple[str, ...] = ()
) -> Found | None:
    """Return what is found with the splits to train and to validate on; None without any split.

    Args:
        settings: Keys of `DataConfig`, `train` and `val` excepted.
        splits: Name of a split, as `split_of` returns it, to its value in the config.
        notes: Go before the notes on the splits.
    """
    choice = chosen(splits)
    if choice is None:
        return None
    train, val, more = choice
    named = {**settings, "train": train, **({"val": val} if val else {})}
    others = unused(splits, [name for name, value in splits.items() if value in (train, val)])
    return Found(named, others=others, notes=(*notes, *more))
