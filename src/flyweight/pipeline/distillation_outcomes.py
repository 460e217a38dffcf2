"""Results of a distillation by class: what a cut had lowered, before and after it."""

from collections.abc import Mapping
from pathlib import Path

from flyweight import checkpoint as checkpoints
from flyweight.errors import FileError
from flyweight.pipeline.distillation_curves import NUMBERS
from flyweight.report.class_results import ClassResults
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

UNTAUGHT = "before distillation"
DISTILLED = "distilled"
TEACHER = "teacher"
"""Names of networks in a report: the student before and after, and a teacher of another kind."""
_NAMED = 3
_BY_CLASS: Mapping[str, str] = {"map_50": "ap/", "miou": "iou/"}
"""Main metric to the beginning of its values by class, where those are what a report shows."""


def regained(results: ClassResults, *, before: str, after: str) -> str:
    """Return a sentence on the classes that a student had lost, and what it has of them again.

    Args:
        results: The first stage is the dense network.
        before: Stage of the student before the distillation.
        after: Likewise after it.

    Example:
        >>> from flyweight.report.class_results import ClassResult
        >>> cats = ClassResult(name="cat", count=9, values=(0.75, 0.5, 0.625))
        >>> stages = ("dense", "pruned", "distilled")
        >>> found = ClassResults(metric="AP", counted="objects", stages=stages, classes=(cats,))
        >>> regained(found, before="pruned", after="distilled")
        'Classes that the cut lowered: 1; raised by distillation: 1 (cat 75.0 -> 50.0 -> 62.5 %).'
    """
    first, last = results.stages.index(before), results.stages.index(after)
    rows = [
        (one.name, one.values[0], one.values[first], one.values[last]) for one in results.classes
    ]
    lowered = [
        (name, one, two, three)
        for name, one, two, three in rows
        if one is not None and two is not None and three is not None and two < one
    ]
    raised = sorted((row for row in lowered if row[3] > row[2]), key=lambda row: row[2] - row[3])
    shown = ", ".join(
        f"{name} {100 * one:.1f} -> {100 * two:.1f} -> {100 * three:.1f} %"
        for name, one, two, three in raised[:_NAMED]
    )
    text = f"Classes that the cut lowered: {len(lowered)}; raised by distillation: {len(raised)}"
    return f"{text} ({shown})." if shown else f"{text}."


def with_teacher(results: ClassResults, student: Path) -> ClassResults:
    """Return results with those of the teacher, where it is not the dense network itself.

    Args:
        results: Of the networks of a run.
        student: Checkpoint of the distilled student; its numbers are beside it.

    Raises:
        FileError: The file of numbers is damaged.
    """
    path = student.parent / NUMBERS
    parents = {one.role: one.digest for one in checkpoints.read(student).parents}
    if not path.is_file() or parents.get("teacher") in (None, parents.get("dense")):
        return results
    remedy = "Remove the file to leave the teacher out."
    with refusing(FileError, "The numbers of a distillation must be whole.", f"'{path}'", remedy):
        numbers = parse_json(read_text(path))
        start, found = _BY_CLASS.get(numbers["primary"]), numbers["teacher"]
    if start is None or not any(f"{start}{one.name}" in found for one in results.classes):
        return results
    classes = tuple(
        one.model_copy(update={"values": (*one.values, found.get(f"{start}{one.name}"))})
        for one in results.classes
    )
    return ClassResults(
        metric=results.metric,
        counted=results.counted,
        stages=(*results.stages, TEACHER),
        classes=classes,
    )
