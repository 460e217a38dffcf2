"""Check of the data of a config: all problems of both splits, counted by kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight.config.settings import Config
from flyweight.data.check import check, check_both
from flyweight.data.loading import Split, open_set
from flyweight.data.problem_kinds import KINDS, KindName
from flyweight.data.records import ImageSet, Problem
from flyweight.errors import DataError
from flyweight.pipeline.inputs import require_kind
from flyweight.progress import Progress, progress_of

EXAMPLES = 5
"""Number of examples of each kind in a summary."""
_SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Found:
    """All problems of one kind.

    Attributes:
        kind: Name in `problem_kinds.KINDS`.
        count: How many there are.
        remedy: What to do.
        examples: The first ones, each with its place.
    """

    kind: KindName
    count: int
    remedy: str
    examples: tuple[str, ...]

    @property
    def stops(self) -> bool:
        """Whether training does not start with them."""
        return KINDS[self.kind].stops


@dataclass(frozen=True)
class CheckedData:
    """Result of the check of a config's data.

    Attributes:
        splits: The splits that could be read, by "train" and "val".
        problems: All problems, in the order in which they were found.
    """

    splits: dict[Split, ImageSet]
    problems: tuple[Problem, ...]

    @property
    def stops(self) -> bool:
        """Whether training does not start with these data."""
        return any(problem.stops for problem in self.problems)


def check_data(config: Config) -> tuple[Problem, ...]:
    """Return all problems of a config's data, see `inspect_data`."""
    return inspect_data(config).problems


def inspect_data(
    config: Config, *, decode: bool = False, progress: Progress | bool = False
) -> CheckedData:
    """Read and check both splits of a config's data. A split that cannot be read is a problem.

    Args:
        config: Of the network and the data.
        decode: Decode every image, and compare the pixels of the two splits.
        progress: Receives progress.

    Raises:
        ConfigError: The data is for another task than the network.
    """
    require_kind(config)
    problems: list[Problem] = []
    splits: dict[Split, ImageSet] = {}
    for split in _SPLITS:
        try:
            splits[split] = open_set(config.data, split)
        except DataError as error:
            place = Path(config.data.root)
            problems.append(Problem(place, None, str(error), kind="unreadable_split"))
    # Class names may come from the training split, so that validation alone does not show them.
    count = len(splits["train"].labels) if "train" in splits else config.num_classes
    if count != config.num_classes:
        message = (
            f"num_classes must be the number of the data's classes, {count}. "
            f"Received {config.num_classes}. Set it with: -o num_classes={count}"
        )
        problems.append(Problem(Path(config.data.root), None, message, kind="num_classes"))
    reports = progress_of(progress)
    if len(splits) == 2:
        first, second = check_both(*splits.values(), decode=decode, progress=reports)
        problems += [*first, *second]
    else:
        for images in splits.values():
            problems += check(images, decode=decode, progress=reports)
    return CheckedData(splits, tuple(problems))


def summary_of(problems: Sequence[Problem]) -> tuple[Found, ...]:
    """Return the problems by kind, in the order of `KINDS`."""
    by_kind: dict[KindName, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    return tuple(
        Found(kind, len(by_kind[kind]), row.remedy, _examples(by_kind[kind]))
        for kind, row in KINDS.items()
        if kind in by_kind
    )


def _examples(problems: Sequence[Problem]) -> tuple[str, ...]:
    return tuple(str(problem) for problem in problems[:EXAMPLES])
