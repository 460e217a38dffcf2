"""`flyweight check-data`: all problems of a config's data, and a contact sheet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import pipeline
from flyweight.cli import heavy
from flyweight.cli.console import say, show, show_json
from flyweight.cli.options import ConfigName, Json, Overrides
from flyweight.errors import DataError, counted
from flyweight.files import write_text
from flyweight.report.text_table import columns

if TYPE_CHECKING:
    from flyweight.pipeline.data_check import CheckedData, Found

_MOST_CLASSES = 30
SHEET, LIST = "contact_sheet.png", "data_problems.txt"

Decode = Annotated[
    bool,
    typer.Option(
        "--decode",
        help="Also decode every image: finds damage inside files, and copies of an image in both "
        "splits in another file format.",
    ),
]


def check_data(
    config: ConfigName, opt: Overrides = None, decode: Decode = False, json: Json = False
) -> None:
    """Check a config's data; draw a contact sheet.

    The folder of the run gets contact_sheet.png, sample images with their annotations drawn, and
    data_problems.txt, all problems one per line. The status is 2 if there are problems that stop
    training, else 0.
    """
    name, settings = pipeline.load_config(config, opt or ())
    found = heavy.inspect_data(settings, decode=decode, progress=True)
    kinds = heavy.summary_of(found.problems)
    folder = Path(settings.save_dir) / name
    written = [heavy.write_contact_sheet(found.splits, found.problems, folder / SHEET)]
    (folder / LIST).unlink(missing_ok=True)  # Of an earlier check.
    if found.problems:
        write_text(folder / LIST, "".join(f"{problem}\n" for problem in found.problems))
        written.append(folder / LIST)
    files = ", ".join(f"'{path}'" for path in written if path is not None)
    if json:
        show_json({"problems": [_record(kind) for kind in kinds]})
        say(f"wrote {files}" if files else "wrote nothing")
    else:
        show(_text(found, kinds))
        show(f"wrote {files}" if files else "wrote nothing")
    if found.stops:
        stopping = [kind for kind in kinds if kind.stops]
        raise DataError(
            "Data must have no problem that stops training. Received "
            f"{counted(sum(kind.count for kind in stopping), 'problem')}: "
            f"{', '.join(f'{kind.kind} ({kind.count:,})' for kind in stopping)}. "
            f"First: {stopping[0].examples[0]}"
        )


def _record(kind: "Found") -> dict[str, object]:
    fields = ("kind", "count", "remedy", "examples")
    return {field: getattr(kind, field) for field in fields}


def _text(found: "CheckedData", kinds: "tuple[Found, ...]") -> str:
    parts = [columns(_counts(found))] if found.splits else []
    for stops, title in ((True, "stops training"), (False, "does not stop training")):
        of_these = [kind for kind in kinds if kind.stops == stops]
        if of_these:
            parts.append("\n".join([f"{title}:", *(_paragraph(kind) for kind in of_these)]))
    return "\n\n".join([*parts, *([] if kinds else ["no problems"])])


def _paragraph(kind: "Found") -> str:
    meaning = heavy.KINDS[kind.kind].meaning
    return (
        f"  {kind.kind} ({kind.count:,}): {meaning}\n"
        f"    first: {kind.examples[0]}\n    remedy: {kind.remedy}"
    )


def _counts(found: "CheckedData") -> list[tuple[str, ...]]:
    """Return rows: what every split has of every class."""
    splits = tuple(found.splits.values())
    rows: list[tuple[str, ...]] = [("", *found.splits)]
    rows.append(("images", *(f"{len(images):,}" for images in splits)))
    counts = [heavy.class_counts(images) for images in splits]
    if any(count is None for count in counts) or len({images.labels for images in splits}) > 1:
        return rows
    labels = splits[0].labels
    for index, label in enumerate(labels[:_MOST_CLASSES]):
        rows.append((f"  {label}", *(f"{count[index]:,}" for count in counts if count is not None)))
    if len(labels) > _MOST_CLASSES:
        rows.append((f"  ({len(labels) - _MOST_CLASSES} classes more)", *("" for _ in splits)))
    return rows
