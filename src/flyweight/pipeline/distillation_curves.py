"""Curves of a distillation for a report: the terms of its loss, and the similarity of features."""

from collections.abc import Iterator
from pathlib import Path

from flyweight.errors import FileError
from flyweight.report.rows import Curve
from flyweight.untrusted.failures import refusing
from flyweight.untrusted.file_bytes import read_text
from flyweight.untrusted.json_values import parse_json

NUMBERS = "distilled.json"
"""The file of metrics and similarities beside the checkpoints of a student."""
TERMS_TITLE = "Terms of the loss of distillation"
SIMILARITY_TITLE = "Similarity of features to the teacher's, by tap (linear CKA)"
_TERMS = ("task", "distill/")


def terms_in(log: Path) -> list[str]:
    """Return the columns of a training's log that are terms of a distillation; none of others."""
    if not log.is_file():
        return []
    columns = read_text(log).partition("\n")[0].strip().split(",")
    found = [name for name in columns if name.startswith(_TERMS)]
    return found if any(name.startswith(_TERMS[1]) for name in found) else []


def similarity_curves(path: Path) -> Iterator[Curve]:
    """Yield the similarity at every tap before and after, if the file of numbers exists.

    Raises:
        FileError: The file is damaged.
    """
    if not path.is_file():
        return
    remedy = "Remove the file to leave the curves out."
    with refusing(FileError, "The numbers of a distillation must be whole.", f"'{path}'", remedy):
        pairs = [
            tuple(map(float, pair)) for pair in parse_json(read_text(path))["similarity"].values()
        ]
        places = tuple(float(place) for place in range(1, len(pairs) + 1))
        curves = [
            Curve(
                name=SIMILARITY_TITLE,
                series=series,
                x=places,
                y=tuple(pair[index] for pair in pairs),
                unit="fraction",
                x_unit="tap",
            )
            for index, series in enumerate(("before", "after"))
        ]
    yield from curves if len(places) > 1 else ()
