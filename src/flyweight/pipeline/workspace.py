"""Stages that are not done again, and what they were made from."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flyweight
from flyweight.data.records import BoxRecord, ClassRecord, ImageSet, MapSet
from flyweight.errors import FileError
from flyweight.files import write_text

NOTE = "done.json"

Say = Callable[[str], None]


def do_stage(
    folder: Path, made_from: Any, work: Callable[[bool], None], makes: Sequence[str], *, say: Say
) -> None:
    """Do `work` unless `folder` has a note that it was done, from the same things.

    Args:
        folder: Gets what the stage makes, and the note.
        made_from: JSON values that stand for everything the result depends on.
        work: Called with whether it goes on with an interrupted attempt at this very work.
        makes: Names of the files that must be there for a stage to be done.
        say: Told what is going on.

    Raises:
        FileError: The folder holds files of someone else's, or cannot be written.
    """
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    note = _read_note(folder)
    same = note.get("made_from") == digest
    whole = all((folder / name).is_file() for name in makes)
    if same and note.get("finished") and whole:
        say(f"{folder.name}: done before")
        return
    if not note and folder.is_dir() and any(folder.iterdir()):
        raise FileError(
            f"The folder of a stage must be its own. Received '{folder}', which holds files that "
            "no run noted as its own. Choose another --output-dir, or remove them."
        )
    resumes = same and not note.get("finished")
    say(f"{folder.name}:" + (" goes on where it was cut off" if resumes else ""))
    _write_note(folder, {"made_from": digest, "finished": False})
    started = time.monotonic()
    work(resumes)
    seconds = time.monotonic() - started
    _write_note(folder, {"made_from": digest, "finished": True, "seconds": round(seconds, 1)})
    say(f"{folder.name}: {seconds:.0f} s")


def forget_stage(folder: Path) -> None:
    """Make the stage be done again from the start; its files stay until they are replaced."""
    if _read_note(folder):
        _write_note(folder, {"made_from": None, "finished": False})


def file_digest(path: Path) -> str:
    """Return a digest of a file's contents.

    Raises:
        FileError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(
            f"'{path}' must be readable. Received: {error.strerror or error}. Correct the path."
        ) from error


def data_digest(images: ImageSet) -> str:
    """Return a digest of a split: classes, annotations, and size and time of every file."""
    digest = hashlib.sha256(json.dumps([flyweight.__version__, *images.labels]).encode())
    if isinstance(images, MapSet):
        digest.update(json.dumps(sorted((images.values or {}).items())).encode())
    for record in images.records:
        digest.update(_annotation_of(record))
        for path in (record.path, getattr(record, "map_path", None)):
            if path is not None:
                status = path.stat()
                facts = [str(path), status.st_size, status.st_mtime_ns]
                digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def _annotation_of(record: Any) -> bytes:
    """Return what a record itself says of its image; a map's file says it for itself."""
    if isinstance(record, BoxRecord):
        boxes: bytes = record.boxes.tobytes() + record.labels.tobytes()
        return boxes + record.difficult.tobytes() + record.crowd.tobytes()
    return str(record.label).encode() if isinstance(record, ClassRecord) else b""


def _read_note(folder: Path) -> dict[str, Any]:
    path = folder / NOTE
    if not path.is_file():
        return {}
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        note = None
    # A note that cannot be read still says whose folder it is.
    return note if isinstance(note, dict) and note else {"made_from": None}


def _write_note(folder: Path, note: dict[str, Any]) -> None:
    write_text(folder / NOTE, json.dumps(note) + "\n")
