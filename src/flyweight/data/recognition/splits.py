"""Names of splits, in any of the spellings that published sets have."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

Value = TypeVar("Value")

_SPELLINGS = {
    "trainval": ("trainval", "trainvalidation"),
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "test": ("test", "testing", "tst"),
}
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_WORD = re.compile(r"[A-Za-z]+")


def split_of(path: PurePosixPath | str) -> str | None:
    """Return the split that a path names: "train", "val", "test", "trainval" or None.

    The last part of the path that names a split decides.

    Example:
        >>> split_of("annotations/instances_val2017.json"), split_of("valid/a.json")
        ('val', 'val')
        >>> split_of("training_set/cat/1.jpg"), split_of("images/restrained.jpg")
        ('train', None)
    """
    *folders, last = ("", *PurePosixPath(path).parts)
    for part in (PurePosixPath(last).stem, *reversed(folders)):
        for word in _WORD.findall(part):
            if word.lower() in _NAMES:
                return _NAMES[word.lower()]
    return None


def chosen(found: Mapping[str, Value]) -> tuple[Value, Value | None, tuple[str, ...]] | None:
    """Return what to train on, what to validate on, and notes; None where there is no split.

    A set without validation split is validated on its test split. Without that, too, the second
    value is None: the training split must be divided.

    Args:
        found: Name of a split, as `split_of` returns it, to the split.
    """
    train = next((name for name in ("train", "trainval", "val", "test") if name in found), None)
    if train is None:
        return None
    # The images of `val` are in `trainval`, too.
    later = {"train": ("val", "test"), "trainval": ("test",), "val": ("test",), "test": ()}[train]
    val = next((name for name in later if name in found), None)
    notes = []
    if val == "test":
        notes.append("there is no validation split, so the test split is used for validation")
    if train in ("val", "test"):
        notes.append(f"there is no training split, so the split '{train}' is used for training")
    return found[train], found[val] if val else None, tuple(notes)


def unused(found: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    """Return the splits whose images a config does not use."""
    whole = {"trainval"} if {"train", "val"} <= {*used} else set()
    return tuple(sorted({*found} - {*used} - whole))
