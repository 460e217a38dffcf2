"""Data check: a list of all problems of a split or of two, with their places, before training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from flyweight.data.check_boxes import box_problems
from flyweight.data.check_images import ImageFile, inspect_image
from flyweight.data.check_maps import CheckedMap, inspect_maps
from flyweight.data.check_split import one_class, source_of, split_problems
from flyweight.data.check_two_splits import check_apart
from flyweight.data.records import (
    BoxRecord,
    BoxSet,
    ClassRecord,
    ImageSet,
    MapRecord,
    MapSet,
    Problem,
)
from flyweight.errors import DataError
from flyweight.files import write_text
from flyweight.progress import SILENT, Progress, progress_over

Images = TypeVar("Images", bound=ImageSet)

_ANNOTATIONS: Mapping[type, str] = {
    BoxRecord: "box",
    ClassRecord: "class",
    MapRecord: "label image",
}
_THREADS = 8


def check(
    images: ImageSet, *, decode: bool = False, progress: Progress = SILENT
) -> tuple[Problem, ...]:
    """Return all problems of one split: those of its files in their order, then of the whole.

    Of each image, the header and the end mark are read. Images without an end mark are decoded, and
    so are all label images.

    Args:
        images: The split.
        decode: Decode every image to the last pixel.
        progress: Receives progress.
    """
    problems = list(images.problems)
    if not images.records:
        message = (
            "a split must have at least one usable image. Received none. "
            "Check the list and the problems named with it."
        )
        problems.append(Problem(source_of(images), None, message, kind="no_images"))
    problems.extend(_repeated_images(images))
    with ThreadPoolExecutor(_THREADS) as pool:
        files = pool.map(partial(inspect_image, decode=decode), images.records)
        label = f"check {images.name}"
        inspected = list(progress_over(files, label, progress, len(images)))
    maps: list[CheckedMap] = []
    if isinstance(images, MapSet):
        sizes = [image.size for image in inspected]
        label = f"check labels of {images.name}"
        maps = list(progress_over(inspect_maps(images, sizes), label, progress, len(images)))
    for image, found in zip(inspected, _annotation_problems(images, inspected, maps), strict=True):
        problems.extend([*image.problems, *found])
    problems.extend(split_problems(images, maps))
    return tuple(problems)


def _annotation_problems(
    images: ImageSet, inspected: Sequence[ImageFile], maps: Sequence[CheckedMap]
) -> Iterator[Iterable[Problem]]:
    """Return an iterator over the problems of the annotations of each image."""
    if isinstance(images, MapSet):
        return iter([labels.problems for labels in maps])
    if isinstance(images, BoxSet):
        pairs = zip(images.records, inspected, strict=True)
        return (box_problems(record, image.size, images.labels) for record, image in pairs)
    # Readers of classes leave invalid entries out and report them themselves.
    return iter([() for _ in inspected])


def check_both(
    train: ImageSet, val: ImageSet | None, *, decode: bool = False, progress: Progress = SILENT
) -> tuple[list[Problem], list[Problem]]:
    """Return the problems of a training split, and those of a validation split.

    Problems between the two are among those of validation. A split alone need not be for training.

    Args:
        train: The training split.
        val: The validation split, if there is one.
        decode: Decode every image, and compare the pixels of the two splits.
        progress: Receives progress.
    """
    first = list(check(train, decode=decode, progress=progress))
    if val is None:
        return first, []
    second = check(val, decode=decode, progress=progress)
    return [*first, *one_class(train, first)], [*second, *check_apart(train, val, decode=decode)]


def require_sound(
    train: Images,
    val: Images | None = None,
    *,
    decode: bool = False,
    list_to: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[Images, Images | None]:
    """Check splits, and raise an error if there are problems that stop training.

    Args:
        train: A split.
        val: Another split, which is checked by itself and against the first.
        decode: Decode every image, and compare the pixels of the two splits.
        list_to: File for the whole list, one problem per line; written only if training stops.
        progress: Receives progress.

    Returns:
        The splits, with the other problems in `problems` of each.

    Raises:
        DataError: There are problems that stop training. The message has their number, the first
            one and the list.
    """
    first, second = check_both(train, val, decode=decode, progress=progress)
    problems = [*first, *second]
    if any(problem.stops for problem in problems):
        refuse(problems, list_to)
    sound = replace(train, problems=tuple(first))
    return sound, None if val is None else replace(val, problems=tuple(second))


def refuse(problems: Sequence[Problem], list_to: Path | None) -> NoReturn:
    """Raise an error with the number of problems that stop training, and the first one.

    Args:
        problems: At least one of them stops training.
        list_to: File for the whole list, one problem per line.

    Raises:
        DataError: Always.
    """
    where = "List them all with: flyweight check-data"
    if list_to is not None:
        write_text(list_to, "".join(f"{problem}\n" for problem in problems))
        where = f"All are listed in '{list_to}'."
    stopping = [problem for problem in problems if problem.stops]
    files = len({problem.path for problem in stopping})
    kinds = {type(problem.record) for problem in stopping}
    what = next((noun for kind, noun in _ANNOTATIONS.items() if kind in kinds), "annotation")
    raise DataError(
        f"Every image and {what} must be usable. Received {len(stopping)} problem"
        f"{'s' if len(stopping) > 1 else ''} in {files} file{'s' if files > 1 else ''}, "
        f"first: {stopping[0]} {where}"
    )


def _repeated_images(images: ImageSet) -> Iterator[Problem]:
    seen: set[Path] = set()
    for record in images.records:
        if record.path in seen:
            remedy = f"Remove the copy from '{source_of(images)}'."
            message = f"an image must be listed once. Received it again. {remedy}"
            yield Problem(record.path, None, message, record, kind="repeated_image")
        elif record.path is not None:
            seen.add(record.path)
